"""Which items of the search pool are learnt from, and which are held out to tell when to stop.

The pool is split in two by a hash: training items, of which every step takes the next few (each
once before any twice, then in a new order), and held-out items, which no slope ever sees. The
pool's own order has no part in that: a race looks at the first items of the pool, and those must
be as much learnt from as the others. Clusters stay together: twins of what is learnt tell nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from search.samplers.steps import Places

HELD_OUT = 0.25  # share of the search items
BATCH = 60  # items of a step, over all tasks


class Batches:
    """The items of a search by gradient.

    ``held`` are the held-out ones.

    Args:
        clusters: Task -> the cluster of each of its items in the search pool, at least one.
        seed: The study's; decides which items are held out, and which a step takes.
    """

    def __init__(self, clusters: Mapping[str, Sequence[str]], seed: int) -> None:
        self._seed = seed
        held = {task: self._held(task, ids) for task, ids in clusters.items()}
        self.held: Places = {task: places for task, places in held.items() if places}
        self._train = {
            task: sorted({*range(len(ids))}.difference(held[task]))
            for task, ids in clusters.items()
        }
        share = min(1.0, BATCH / sum(map(len, self._train.values())))
        self._takes = {task: max(1, round(share * len(x))) for task, x in self._train.items()}

    def of(self, number: int) -> Places:
        """Return the training items of a step: of each task the next ones, in a random order."""
        found = {}
        for task, takes in self._takes.items():
            count, first = len(self._train[task]), number * takes
            epochs = range(first // count, (first + takes - 1) // count + 1)
            order = [place for epoch in epochs for place in self._order(task, epoch)]
            start = first - epochs.start * count
            found[task] = tuple(sorted(order[start : start + takes]))
        return found

    def _held(self, task: str, clusters: Sequence[str]) -> tuple[int, ...]:
        """Return the places of whole clusters, in a random order as many as there is room for."""
        room, members = round(HELD_OUT * len(clusters)), Counter(clusters)
        chosen = set()
        for name in sorted(members, key=lambda name: self._rank(task, "held", name)):
            if members[name] <= room:
                chosen.add(name)
                room -= members[name]
        return tuple(place for place, name in enumerate(clusters) if name in chosen)

    def _order(self, task: str, epoch: int) -> list[int]:
        return sorted(self._train[task], key=lambda place: self._rank(task, epoch, place))

    def _rank(self, *names: object) -> bytes:
        text = "\x1f".join(map(str, (self._seed, *names)))
        return blake2b(text.encode(), digest_size=16).digest()

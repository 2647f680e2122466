"""Which items of the search pool are learnt from, and which are held out to tell when to stop.

The pool is split in two by its own order: training items, of which every step takes the next few
(each once before any twice, then in a new order), and held-out items, which no slope ever sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from search.samplers.steps import Places

HELD_OUT = 0.25  # share of the search items
BATCH = 60  # items of a step, over all tasks


class Batches:
    """The items of a search by gradient.

    ``held`` are the held-out ones.

    Args:
        sizes: Task -> how many items of it the search pool has, at least one.
        seed: The study's; decides which items a step takes.
    """

    def __init__(self, sizes: Mapping[str, int], seed: int) -> None:
        self._seed = seed
        held = {task: round(HELD_OUT * n) for task, n in sizes.items()}
        self.held: Places = {task: tuple(range(n)) for task, n in held.items() if n}
        self._train = {task: range(held[task], n) for task, n in sizes.items()}
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

    def _order(self, task: str, epoch: int) -> list[int]:
        def rank(place: int) -> bytes:
            text = f"{self._seed}\x1f{task}\x1f{epoch}\x1f{place}"
            return blake2b(text.encode(), digest_size=16).digest()

        return sorted(self._train[task], key=rank)

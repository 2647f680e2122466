"""Which items steer, which select, which report: decided by a hash of each item, never by order.

Items that are not independent (a cluster: twins, questions on one passage, one document in two
tasks) are in one pool. A cluster's place depends on the seed, on the ids of its tasks' items and on
how many of these are wanted. Adding a task that shares nothing, or reading a task in another order,
moves nobody. A shuffle of the list was rejected: one new item would move half of all others into
another pool.

A cluster goes to the first pool with room for it, task by task. Where that parts one, or leaves a
pool with fewer items than asked for, all tasks are placed together: a cluster goes to the first
pool that has room for it in each of its tasks; one that fits nowhere so, and may be left out of a
task, to the first with room in some; one that still fits nowhere to the first that has room over
all tasks, or else to the report, where that is "rest". So a pool never has more items than asked
for, the rest excepted, and fewer by less than one cluster.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Any, NamedTuple

from evaluators.clusters import content
from merge_core.errors import ParameterError
from search.scoring.shares import NAMES as NAMES
from search.scoring.shares import Counts, Parts, least_of, wanted

_TOGETHER = "items that belong together stay in one pool, see `cluster`"


@dataclass(frozen=True)
class Pool:
    """The items of one purpose, task by task, each task's clusters in one random order.

    Members of a cluster stand next to each other. So a prefix of a task's positions is a random
    sample of the clusters of its part of the pool, of which it may cut the last.
    """

    tasks: tuple[str, ...]  # sorted
    positions: tuple[tuple[int, ...], ...]  # aligned with tasks: places in the task's own items

    def __len__(self) -> int:
        return sum(map(len, self.positions))

    def of(self, task: str) -> tuple[int, ...]:
        """Return the positions of one task's items, in the pool's order.

        Raises:
            ValueError: The pool was split from items that do not have that task.
        """
        return self.positions[self.tasks.index(task)]


def described(ids: Sequence[str]) -> dict[str, Any]:
    """Return what a study stores of a task's items in a pool beside their ids.

    Returns:
        ``items``: how many; ``digest``: SHA-256 of the ids, in the pool's order, as a JSON list.
    """
    return {"items": len(ids), "digest": sha256(json.dumps([*ids]).encode()).hexdigest()}


class Sharing(NamedTuple):
    """What is to be shared out; see ``split``."""

    ids: Mapping[str, Sequence[str]]
    clusters: Mapping[str, Sequence[str]] | None = None
    graded: frozenset[str] = frozenset()

    def split(self, counts: Counts, seed: int) -> dict[str, Pool]:
        """Return the pools; see ``split``."""
        return split(self.ids, counts, seed, self.clusters, self.graded)


def split(
    ids: Mapping[str, Sequence[str]],
    counts: Counts,
    seed: int,
    clusters: Mapping[str, Sequence[str]] | None = None,
    graded: Collection[str] = (),
) -> dict[str, Pool]:
    """Share items out into the three pools, and return these by name; they are disjoint.

    Each pool has the asked number of items, shared among the tasks in proportion to their sizes
    (largest remainders), at least one of every task; where clusters do not add up to it, fewer by
    less than one cluster. Items beyond all counts are in no pool.

    Args:
        ids: Task -> the ids of all its items, in any order; a position counts these. An id is made
            from the content: items of one task with the same content have ``X``, ``X#2``, ``X#3``.
        counts: ``search`` and ``select``: items over all tasks, >= 1; ``report``: the same, or
            "rest" for all that are left.
        seed: The study's seed, any whole number.
        clusters: Task -> the name of each item's cluster, over all tasks; None: its content.
        graded: Tasks whose scores may be any number, so that one of them tells no variance: the
            pools after the first have two items of them, of two clusters.

    Raises:
        ParameterError: The counts ask for more items than there are, or leave a pool without what
            it needs of a task; an item is there twice; a task has too few clusters for three pools,
            or one that holds half of it.
    """
    tasks = tuple(sorted(ids))
    named = clusters or {task: [content(name) for name in ids[task]] for task in tasks}
    some = frozenset(graded)
    for task in tasks:
        _check_items(task, ids[task], sum(least_of(task in some)))
        _check_clusters(task, ids[task], named[task])
    asked = wanted({task: len(ids[task]) for task in tasks}, counts, some)
    homes = _homes({task: named[task] for task in tasks}, asked, counts["report"] == "rest", seed)
    for task in tasks:
        _check_pools(
            task, [(c, homes[task].get(c)) for c in named[task]], asked[task], task in some
        )
    places = {
        name: tuple(_ordered(ids[task], named[task], homes[task], name, seed) for task in tasks)
        for name in NAMES
    }
    return {name: Pool(tasks, positions) for name, positions in places.items()}


def _check_items(task: str, ids: Sequence[str], least: int) -> None:
    name, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise ParameterError(f"task {task}: the item id {name!r} is there {times} times")
    if len(ids) < least:
        two = f", and of graded scores the last two need two: at least {least}"
        raise ParameterError(
            f"task {task}: {len(ids)} items, but each of the pools {', '.join(NAMES)} needs one"
            f"{two if least > len(NAMES) else ''}"
        )


def _check_clusters(task: str, ids: Sequence[str], clusters: Sequence[str]) -> None:
    sizes = Counter(clusters)
    if len(sizes) < len(NAMES):
        raise ParameterError(
            f"task {task}: its {len(ids)} items are {len(sizes)} clusters, but each of the pools "
            f"{', '.join(NAMES)} needs one; {_TOGETHER}"
        )
    largest, size = sizes.most_common(1)[0]
    contents = {content(x) for x, cluster in zip(ids, clusters, strict=True) if cluster == largest}
    if 2 * size >= len(ids) and len(contents) > 1:
        raise ParameterError(
            f"task {task}: {size} of its {len(ids)} items are one cluster, so that the others "
            f"cannot tell how well it is done; {_TOGETHER}"
        )


def _check_pools(
    task: str,
    homes: Sequence[tuple[str, str | None]],
    asked: Sequence[int],
    graded: bool,
) -> None:
    """Refuse pools without a task, or with too few of its clusters for an interval with an end."""
    for name, number, least in zip(NAMES, asked, least_of(graded), strict=True):
        here = {cluster for cluster, home in homes if home == name}
        if len(here) < least:
            sizes = Counter(cluster for cluster, _ in homes).values()
            got = "one cluster, and one graded score tells no variance" if here else "no cluster"
            raise ParameterError(
                f"task {task}: {number} of its {len(homes)} items were to be in {name}, but that "
                f"gets {got}; its clusters have {min(sizes)} to {max(sizes)} items, and {_TOGETHER}"
                f"; ask for more in {name}"
            )


def _homes(
    clusters: Mapping[str, Sequence[str]], asked: Parts, rest: bool, seed: int
) -> dict[str, dict[str, str]]:
    """Return task -> cluster -> the pool that it is in, for those that are in one."""
    apart: dict[str, dict[str, str]] = {}
    for task, names in clusters.items():
        apart |= _placed({task: names}, asked, False, seed)
    found: dict[str, set[str]] = {}
    for homes in apart.values():
        for name, pool in homes.items():
            found.setdefault(name, set()).add(pool)
    exact = all(
        sum(apart[task].get(name) == pool for name in names) == number
        for task, names in clusters.items()
        for pool, number in zip(NAMES, asked[task], strict=True)
    )
    if exact and all(len(pools) == 1 for pools in found.values()):
        return apart
    return _placed(clusters, asked, rest, seed)


def _placed(
    clusters: Mapping[str, Sequence[str]], asked: Parts, rest: bool, seed: int
) -> dict[str, dict[str, str]]:
    """Place the clusters of some tasks together; see ``_homes``."""
    sizes: dict[str, Counter[str]] = {}
    for task, names in clusters.items():
        for name in names:
            sizes.setdefault(name, Counter())[task] += 1
    room = [Counter({task: asked[task][k] for task in clusters}) for k in range(len(NAMES))]

    def roomy(name: str, there: Counter[str]) -> list[str]:
        return [task for task, number in sizes[name].items() if number <= there[task]]

    def roomy_in_each(name: str, there: Counter[str]) -> list[str]:
        found = roomy(name, there)
        return found if len(found) == len(sizes[name]) else []

    def roomy_in_all(name: str, there: Counter[str]) -> list[str]:
        return [*sizes[name]] if sizes[name].total() <= there.total() else []

    def to_the_rest(name: str, there: Counter[str]) -> list[str]:
        return [*sizes[name]] if there is room[-1] else []

    homes: dict[str, dict[str, str]] = {task: {} for task in clusters}
    order = sorted(sizes, key=lambda name: rank(seed, name))
    later = (roomy_in_all, to_the_rest) if rest else (roomy, roomy_in_all)
    for fitting in (roomy_in_each, *later):
        order = [name for name in order if not _fill(name, sizes[name], room, fitting, homes)]
    return homes


def _fill(
    name: str,
    sizes: Counter[str],
    room: Sequence[Counter[str]],
    fitting: Callable[[str, Counter[str]], list[str]],
    homes: Mapping[str, dict[str, str]],
) -> bool:
    """Put a cluster into the first pool that it fits in, for some tasks; tell whether there is."""
    for pool, there in zip(NAMES, room, strict=True):
        tasks = fitting(name, there)
        for task in tasks:
            homes[task][name] = pool
            there[task] -= sizes[task]
        if tasks:
            return True
    return False


def _ordered(
    ids: Sequence[str], clusters: Sequence[str], homes: Mapping[str, str], pool: str, seed: int
) -> tuple[int, ...]:
    here = [i for i, cluster in enumerate(clusters) if homes.get(cluster) == pool]
    return tuple(sorted(here, key=lambda i: (rank(seed, clusters[i]), rank(seed, ids[i]))))


def rank(seed: int, name: str) -> bytes:
    """Return what orders clusters, and items, at random: by the seed and their names alone."""
    return blake2b(f"{seed}\x1f{name}".encode(), digest_size=16).digest()

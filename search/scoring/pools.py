"""Which items steer, which select, which report: decided by a hash of each item, never by order.

An item's place depends on the seed, on the ids of its own task and on how many items of that task
are wanted. Adding a task, or reading a task in another order, moves nobody. A shuffle of the list
was rejected: one new item would move half of all others into another pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from merge_core.errors import ParameterError

NAMES = ("search", "select", "report")  # what steers the sampler, picks the winner, measures it


@dataclass(frozen=True)
class Pool:
    """The items of one purpose, task by task, each task in one random order.

    A prefix of a task's positions is a random sample of its part of the pool.
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


def split(
    ids: Mapping[str, Sequence[str]], counts: Mapping[str, int | Literal["rest"]], seed: int
) -> dict[str, Pool]:
    """Share items out into the three pools, and return these by name; they are disjoint.

    Each pool has exactly the asked number of items, shared among the tasks in proportion to their
    sizes (largest remainders), at least one of every task. Items with the same content stay
    together; items beyond all counts are in no pool.

    Args:
        ids: Task -> the ids of all its items, in any order; a position counts these. An id is made
            from the content: items of one task with the same content have ``X``, ``X#2``, ``X#3``.
        counts: ``search`` and ``select``: items over all tasks, >= 1; ``report``: the same, or
            "rest" for all that are left.
        seed: The study's seed, any whole number.

    Raises:
        ParameterError: The counts ask for more items than there are, or leave a task without an
            item in a pool; an item is there twice; items of the same content, in one task or in
            several, cannot stay together at these counts.
    """
    tasks = tuple(sorted(ids))
    for task in tasks:
        _check_task(task, ids[task])
    wanted = zip(tasks, _wanted([len(ids[task]) for task in tasks], counts), strict=True)
    places = [_placed(task, ids[task], numbers, seed) for task, numbers in wanted]
    _check_together(tasks, ids, places)
    found = (Pool(tasks, positions) for positions in zip(*places, strict=True))
    return dict(zip(NAMES, found, strict=True))


def _check_together(
    tasks: Sequence[str],
    ids: Mapping[str, Sequence[str]],
    places: Sequence[tuple[tuple[int, ...], ...]],
) -> None:
    """Refuse a split that has one item in two pools: one task asked twice, by two metrics."""
    seen: dict[str, tuple[str, str]] = {}
    for task, pools in zip(tasks, places, strict=True):
        for name, positions in zip(NAMES, pools, strict=True):
            for content in {ids[task][i].partition("#")[0] for i in positions}:
                other, there = seen.setdefault(content, (task, name))
                if there != name:
                    raise ParameterError(
                        f"items: {other} and {task} have the same items, and one of them would be "
                        f"in {there} for the first and in {name} for the second; ask for numbers "
                        f"of items that the {len(tasks)} tasks share evenly"
                    )


def _check_task(task: str, ids: Sequence[str]) -> None:
    name, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise ParameterError(f"task {task}: the item id {name!r} is there {times} times")
    if len(ids) < len(NAMES):
        raise ParameterError(
            f"task {task}: {len(ids)} items, but each of the pools {', '.join(NAMES)} needs one"
        )


def _wanted(
    sizes: Sequence[int], counts: Mapping[str, int | Literal["rest"]]
) -> list[tuple[int, int, int]]:
    least, rest = len(sizes), counts["report"] == "rest"
    number = {name: least if count == "rest" else count for name, count in counts.items()}
    search, select, report = (number[name] for name in NAMES)
    for name, value in number.items():
        if value < least:
            raise ParameterError(
                f"items.{name} must be at least 1 for each of the {least} tasks, got {value}"
            )
    if sum(number.values()) > sum(sizes):
        tail = f"at least {least} for report" if rest else f"{report} for report"
        raise ParameterError(
            f"items: {search} for search, {select} for select and {tail} are "
            f"{sum(number.values())}, but there are {sum(sizes)} items; ask for fewer"
        )
    first = _shared(search, sizes, [0] * least, kept=2)  # one item for each later pool
    second = _shared(select, sizes, first, kept=1)
    used = [a + b for a, b in zip(first, second, strict=True)]
    third = [n - u for n, u in zip(sizes, used, strict=True)]
    if not rest:
        third = _shared(report, sizes, used, kept=0)
    return list(zip(first, second, third, strict=True))


def _shared(total: int, sizes: Sequence[int], used: Sequence[int], kept: int) -> list[int]:
    """Round ``total * size / sum(sizes)`` to whole numbers >= 1 that add up to ``total``.

    No task gets more than ``size - used - kept``. Ties go to the task of which less is used.
    """
    whole = sum(sizes)
    most = [n - u - kept for n, u in zip(sizes, used, strict=True)]
    parts = [min(max(total * n // whole, 1), m) for n, m in zip(sizes, most, strict=True)]

    def lacking(t: int) -> tuple[int, int]:  # how far below its quota, in items times whole
        return total * sizes[t] - parts[t] * whole, sum(used) * sizes[t] - used[t] * whole

    while sum(parts) < total:
        parts[max((t for t, m in enumerate(most) if parts[t] < m), key=lacking)] += 1
    while sum(parts) > total:
        parts[min((t for t in range(len(parts)) if parts[t] > 1), key=lacking)] -= 1
    return parts


def _placed(
    task: str, ids: Sequence[str], wanted: tuple[int, int, int], seed: int
) -> tuple[tuple[int, ...], ...]:
    twins: dict[str, list[int]] = {}
    for position, name in enumerate(ids):
        twins.setdefault(name.partition("#")[0], []).append(position)
    pools: tuple[list[int], ...] = ([], [], [])
    for content in sorted(twins, key=lambda name: _rank(seed, name)):
        group = twins[content]
        for pool, number in zip(pools, wanted, strict=True):
            if len(pool) + len(group) <= number:
                pool.extend(group)
                break
    if [*map(len, pools)] != [*wanted]:
        raise ParameterError(
            f"task {task}: {len(ids)} items of {len(twins)} different contents cannot be split "
            f"into {', '.join(map(str, wanted))} with equal ones together; change items by one"
        )
    return tuple(tuple(sorted(pool, key=lambda i: _rank(seed, ids[i]))) for pool in pools)


def _rank(seed: int, name: str) -> bytes:
    return blake2b(f"{seed}\x1f{name}".encode(), digest_size=16).digest()

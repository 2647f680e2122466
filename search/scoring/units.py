"""The units in which a pool is seen: each holds every task in proportion, in random order.

A task's clusters stand in the pool in a random order, so any prefix of them is a random sample.
With several tasks one order of all is needed, in which each prefix has the tasks in proportion and
which is still random: the clusters of each task are cut into ``U`` runs of as equal a number of
clusters as can be, and unit ``j`` holds run ``j`` of every task. Which units get the longer runs is
decided by a hash, for each task alone. So the units are exchangeable: whatever is a function of a
unit's items (a sum of scores, of differences) is, seen unit by unit, a draw without replacement
from ``U`` values, with known mean of the rest given what was seen. An exact test needs no more.

``U`` is the number of clusters of the task that a middling cluster belongs to (the weighted median
of the tasks' numbers of clusters): one task has one cluster a unit, tasks of one size one cluster
each, and a tiny task beside large ones is not in every unit, instead of making all units large.

Rejected: one cluster a unit in a random order of all tasks (a prefix would have the tasks out of
proportion); longer runs first or spread evenly (then the units are not exchangeable).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby

from merge_core.errors import ParameterError

LOOKS = 12  # at most; the last one sees the whole pool
FIRST = 8  # units, the fewest after which anything can be decided


@dataclass(frozen=True)
class Units:
    """A pool's items in exchangeable units.

    Args:
        ends: Task -> for each unit the place after its last item, in the pool's order; the same
            number of units for each task, and the last end is the task's number of items. A unit
            without an item of the task has the end of the one before.
    """

    ends: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, clusters: Mapping[str, Sequence[str]], seed: int) -> Units:
        """Cut a pool into units.

        Args:
            clusters: Task -> the id of each item's cluster, in the pool's order, at least one item;
                items of a cluster are neighbours. Ids count within a task.
            seed: The study's, any whole number.

        Raises:
            ParameterError: There is no task, or one without an item.
        """
        empty = [task for task, ids in clusters.items() if not len(ids)]
        if empty or not clusters:
            raise ParameterError(f"units need an item of every task, {empty or 'no task'} has none")
        sizes = {t: [len([*same]) for _, same in groupby(ids)] for t, ids in clusters.items()}
        count = _typical([len(x) for x in sizes.values()])
        return cls({task: _ends(x, count, f"{seed}\x1f{task}") for task, x in sizes.items()})

    @property
    def count(self) -> int:
        """Number of units."""
        return len(next(iter(self.ends.values())))

    def prefix(self, units: int) -> Mapping[str, int]:
        """Return how many items of each task are in the first ``units`` units, 0 to ``count``."""
        return {task: ends[units - 1] if units else 0 for task, ends in self.ends.items()}

    def seen(self, items: Mapping[str, int]) -> int:
        """Return how many units are whole when this many items of each named task are seen.

        Raises:
            ParameterError: A task is not there.
        """
        if unknown := sorted(items.keys() - self.ends.keys()):
            raise ParameterError(f"units: there is no task {', '.join(unknown)} in the pool")
        return min(sum(end <= n for end in self.ends[t]) for t, n in items.items())

    def looks(self, most: int = LOOKS) -> tuple[int, ...]:
        """Return after how many units is looked: ascending, the last is ``count``.

        The steps are geometric, from a sixth of the units on but not before ``FIRST``: what is far
        worse is seen soon, and later a look only pays with much more than the one before. An
        estimate from a twelfth of the units has 1.6 times the error of one from a sixth (20 items
        a task at the quickstart), and samplers learn from it.

        Args:
            most: Most looks, at least 1.
        """
        first = min(self.count, max(FIRST, math.ceil(self.count / 6)))
        steps = max(1, most - 1)
        ratio = (self.count / first) ** (1 / steps)
        found = {round(first * ratio**i) for i in range(steps)} if most > 1 else set()
        return tuple(sorted({x for x in found if x < self.count} | {self.count}))


def _typical(numbers: Sequence[int]) -> int:
    """Return the number of clusters of the task that a middling cluster belongs to."""
    ranked, below = sorted(numbers), 0
    for number in ranked:
        below += number
        if 2 * below >= sum(ranked):
            return number
    raise AssertionError("the last one reaches the sum")


def _ends(sizes: Sequence[int], count: int, key: str) -> tuple[int, ...]:
    """Return the ends of ``count`` runs of clusters of these sizes, the longer ones by hash."""
    short, left = divmod(len(sizes), count)
    longer = {*sorted(range(count), key=lambda unit: _rank(key, unit))[:left]}
    ends, cluster, items = [], 0, 0
    for unit in range(count):
        after = cluster + short + (unit in longer)
        items += sum(sizes[cluster:after])
        cluster = after
        ends.append(items)
    return tuple(ends)


def _rank(key: str, unit: int) -> bytes:
    return blake2b(f"{key}\x1f{unit}".encode(), digest_size=16).digest()

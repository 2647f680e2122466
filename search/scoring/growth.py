"""A report pool that grows: what is in it stays, in its order, and fresh items come after that.

Nothing chose by what comes: it is in no pool, and nor is anything that belongs together with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from evaluators.clusters import content
from search.scoring.pools import NAMES, Pool, Sharing, rank
from search.scoring.shares import Counts, wanted

Number = int | Literal["rest"]
REPORT = NAMES[-1]


def split_again(
    sharing: Sharing, counts: Counts, before: Sequence[Number], seed: int
) -> dict[str, Pool]:
    """Share items out as ``pools.split``, and let the report pool grow as it has.

    Args:
        sharing: What is shared out.
        counts: How many items each pool is to have now.
        before: How many report items were asked for earlier, the first number first.
        seed: The study's seed.

    Raises:
        ParameterError: See ``pools.split``.
    """
    steps = [*before, counts[REPORT]]
    pools = sharing.split({**counts, REPORT: steps[0]}, seed)
    for number in steps[1:]:
        pools[REPORT] = _grown(pools, sharing, {**counts, REPORT: number}, seed)
    return pools


def _grown(pools: Mapping[str, Pool], sharing: Sharing, counts: Counts, seed: int) -> Pool:
    """Return the report pool with as many more items as are asked for, cluster by cluster."""
    report, ids = pools[REPORT], sharing.ids
    named = sharing.clusters or {t: [content(x) for x in ids[t]] for t in report.tasks}
    asked = wanted({task: len(ids[task]) for task in report.tasks}, counts, sharing.graded)
    room = Counter({t: max(0, asked[t][-1] - len(report.of(t))) for t in report.tasks})
    left = sum(parts[-1] for parts in asked.values()) - len(report)
    fresh = _fresh(pools, named)
    come: dict[str, list[int]] = {task: [] for task in report.tasks}
    for name in sorted(fresh, key=lambda name: rank(seed, name)):
        places = fresh[name]
        size = sum(map(len, places.values()))
        if size > left or any(len(some) > room[task] for task, some in places.items()):
            continue
        left -= size
        for task, some in places.items():
            room[task] -= len(some)
            come[task] += [i for _, i in sorted((rank(seed, ids[task][i]), i) for i in some)]
    positions = tuple((*report.of(task), *come[task]) for task in report.tasks)
    return Pool(report.tasks, positions)


def _fresh(
    pools: Mapping[str, Pool], named: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, list[int]]]:
    """Return cluster -> task -> its places that are in no pool, of clusters that chose nothing."""
    chose = {
        named[task][i]
        for pool in NAMES[:-1]
        for task in pools[pool].tasks
        for i in pools[pool].of(task)
    }
    found: dict[str, dict[str, list[int]]] = {}
    for task in pools[REPORT].tasks:
        here = {*pools[REPORT].of(task)}
        for i, name in enumerate(named[task]):
            if i not in here and name not in chose:
                found.setdefault(name, {}).setdefault(task, []).append(i)
    return found

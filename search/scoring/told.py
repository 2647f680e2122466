"""What pools and clusters come to, in words, for whoever reads the study's result."""

from __future__ import annotations

from collections.abc import Mapping

from evaluators.clusters import content
from evaluators.protocol import Evaluator
from search.scoring.pools import Pool
from search.scoring.shares import Counts


def clustered(evaluators: Mapping[str, Evaluator]) -> list[str]:
    """Return of each task with items that are not independent how many clusters these are."""
    found = []
    for task, e in evaluators.items():
        contents, clusters = {content(item.id) for item in e.items}, {*e.cluster_ids}
        if e.clusters is not None and len(clusters) < len(contents):
            by = f" by `{e.clustered_by}`" if e.clustered_by else ""
            found.append(f"{task}: {len(clusters)} clusters of {len(e.items)} items{by}")
    return found


def fewer(asked: Counts, pools: Mapping[str, Pool]) -> list[str]:
    """Return of each pool with fewer items than were asked for how many it has."""
    return [
        f"{len(pools[name])} instead of {count} for {name}"
        for name, count in asked.items()
        if count not in ("rest", len(pools[name]))
    ]


def notices(
    evaluators: Mapping[str, Evaluator], asked: Counts, pools: Mapping[str, Pool]
) -> list[str]:
    """Return both as sentences, where there is something to say."""
    found = []
    if told := clustered(evaluators):
        found.append(
            f"Items of one cluster are not independent and stay in one pool. {'; '.join(told)}."
        )
    if less := fewer(asked, pools):
        found.append(f"Since clusters of items stay together, there are {', '.join(less)}.")
    return found

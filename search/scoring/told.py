"""What pools and clusters come to, in words, for whoever reads the study's result."""

from __future__ import annotations

from collections.abc import Mapping

from evaluators.clusters import content
from evaluators.protocol import Evaluator
from search.scoring.pools import Pool
from search.scoring.shares import Counts


def clustered(evaluators: Mapping[str, Evaluator]) -> str:
    """Return which tasks have items that are not independent, and by which key, or nothing."""
    found = []
    for task, e in evaluators.items():
        contents, clusters = {content(item.id) for item in e.items}, {*e.cluster_ids}
        if e.clusters is not None and len(clusters) < len(contents):
            by = f" by `{e.clustered_by}`" if e.clustered_by else ""
            found.append(f"{task}: {len(clusters)} clusters of {len(e.items)} items{by}")
    if not found:
        return ""
    return f"Items of one cluster are not independent and stay in one pool. {'; '.join(found)}."


def fewer(asked: Counts, pools: Mapping[str, Pool]) -> str:
    """Return which pools have fewer items than were asked for, or nothing."""
    found = [
        f"{len(pools[name])} instead of {count} for {name}"
        for name, count in asked.items()
        if count not in ("rest", len(pools[name]))
    ]
    if not found:
        return ""
    return f"Since clusters of items stay together, there are {', '.join(found)}."

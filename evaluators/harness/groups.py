"""A group of lm-eval -> its tasks, each with its share in the group's one number.

Where lm-eval gives the group a number (all its tasks have one metric and filter, and the group's
``aggregate_metric_list`` names them), the shares are lm-eval's: by size or equal, over all tasks of
nested groups. Otherwise, as in ``leaderboard``, whose tasks are scored by different metrics, the
number is the plain mean over the members, each nested group by its own rule. A tag is a group
without a list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from evaluators.harness.requests import Prepared, PreparedGroup

if TYPE_CHECKING:
    from lm_eval.config.group import AggMetricConfig

    from evaluators.harness.task import LmEvalTask

Open = Callable[[Prepared, str | None, str | None], "LmEvalTask"]  # with a metric and a filter


def shares_of(group: PreparedGroup, open_member: Open) -> list[tuple[LmEvalTask, float]]:
    """Open a group's tasks, each once.

    A member's metric and filter are those that its nearest group aggregates, if that names just
    one; they are handed to ``open_member`` where the task has them.

    Returns:
        Tasks in the group's order with their shares, which sum to 1.
    """
    tasks: dict[str, LmEvalTask] = {}
    shares = _shares(group, open_member, tasks, None)
    return [(tasks[name], share) for name, share in shares.items()]


def _shares(
    group: PreparedGroup,
    open_member: Open,
    tasks: dict[str, LmEvalTask],
    rule: AggMetricConfig | None,
) -> Mapping[str, float]:
    rule = group.rules[0] if len(group.rules) == 1 else rule
    parts: list[Mapping[str, float]] = []
    for member in group.members:
        if isinstance(member, PreparedGroup):
            parts.append(_shares(member, open_member, tasks, rule))
            continue
        if member.name not in tasks:
            tasks[member.name] = open_member(member, *_asked_for(member, rule))
        parts.append({member.name: 1.0})
    names = list(dict.fromkeys(name for part in parts for name in part))
    own = _rule_for(group.rules, [tasks[name] for name in names])
    if own is None:
        found: Counter[str] = Counter()
        for part in parts:
            found.update({name: share / len(parts) for name, share in part.items()})
        return found
    sizes = {name: len(tasks[name].items) if own.weight_by_size else 1 for name in names}
    return {name: size / sum(sizes.values()) for name, size in sizes.items()}


def _asked_for(member: Prepared, rule: AggMetricConfig | None) -> tuple[str | None, str | None]:
    if rule is None or rule.metric not in member.task.aggregation():
        return None, None
    filters = [f.name for f in member.task._filters]
    asked = [name for name in rule.filter_list or () if name in filters]
    return rule.metric, asked[0] if len(asked) == 1 else None


def _rule_for(
    rules: Sequence[AggMetricConfig], tasks: Sequence[LmEvalTask]
) -> AggMetricConfig | None:
    """Return the rule that aggregates what all these tasks are scored by."""
    if len({(task.unit, task.filter) for task in tasks}) > 1:
        return None
    metric, filter_ = tasks[0].unit, tasks[0].filter
    matching = (r for r in rules if r.metric == metric and filter_ in (r.filter_list or [filter_]))
    return next(matching, None)

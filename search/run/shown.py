"""Which difference a study's report pool can show, before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping

from search.scoring.aggregate import Aggregate
from search.scoring.intervals import detectable
from search.scoring.pools import NAMES
from search.trial.tasks import Tasks

REPORT = NAMES[-1]
SHARES = (0, 1)  # bounds of scores whose differences are points of a hundred
OTHERWISE = 0.2  # of the items two models are taken to answer otherwise
ALONE = 1.0  # where scores are no shares: in standard deviations of an item's difference
HOPED = 0.05  # a difference that one hopes to see


def shown(tasks: Tasks) -> str | None:
    """Say which true difference of two models the report pool probably shows.

    It is ``intervals.detectable``'s, with the clusters of each task as its independent items: seen
    by 4 studies of 5. Where scores are no shares of 1 it is in standard deviations of an item's
    difference, which nobody knows yet. None where all scores are exact.
    """
    forms, counts, spread = _planned(tasks)
    if not forms:
        return None
    least = max(_least(form, counts, spread) for form in forms)
    items = f"the {len(tasks.pools[REPORT])} report items"
    if len({i for form in forms for i in form}) < len(tasks.evaluators):
        items += ", exact scores aside"
    if spread != ALONE:
        return (
            f"a difference of {100 * least:.1f} points is likely to be shown by {items}, if two "
            f"models answer {100 * OTHERWISE:.0f} % of them otherwise"
        )
    return (
        f"a difference of {least:.2f} standard deviations of an item's difference is likely to be "
        f"shown by {items}"
    )


def few(tasks: Tasks) -> str | None:
    """Say that the report pool is too small for a difference of ``HOPED``, and what would do.

    None where it is not, or where scores are no shares of 1.
    """
    forms, counts, spread = _planned(tasks)
    if not forms or spread == ALONE:
        return None
    times = max(_times(form, counts, spread) for form in forms)
    if times <= 1:
        return None
    items = len(tasks.pools[REPORT])
    least = max(_least(form, counts, spread) for form in forms)
    return (
        f"few items: the {items} of the report pool will hardly show a difference below "
        f"{100 * least:.1f} points; {100 * HOPED:.0f} points take about {math.ceil(times * items)}"
        ": give `items.report` or the tasks more, or do not hope to see a small gain"
    )


def _planned(
    tasks: Tasks,
) -> tuple[list[dict[str, float]], dict[str, int], float]:
    """Return sums of tasks' means that are compared, independent items, and variance of one."""
    clusters, exact = tasks.clusters(REPORT), tasks.exact(REPORT)
    counts = {task: len({*ids}) for task, ids in clusters.items() if task not in exact}
    forms = [form for one in _forms(tasks.aggregate) if (form := _within(one, counts))]
    shares = all(tasks.evaluators[task].bounds == SHARES for form in forms for task in form)
    return forms, counts, OTHERWISE if shares else ALONE


def _times(form: Mapping[str, float], counts: Mapping[str, int], spread: float) -> float:
    """Return how many times as many items show a difference of ``HOPED``; see ``detectable``."""
    wanted = HOPED / sum(form.values())
    if wanted >= 1:
        return 0.0
    now = _least(form, counts, spread) / sum(form.values())

    def odds(d: float) -> float:
        return d**2 / (spread - d**2) if d <= spread else d / (1 - d)

    return odds(now) / odds(wanted) if now < 1 else math.inf


def _forms(aggregate: Aggregate) -> list[Mapping[str, float]]:
    """Return task -> what its mean counts: of the number, or where that is the least, of each."""
    if aggregate.kind != "min":
        return [aggregate.weights]
    return [entry.linear().factors for entry in aggregate.entries]


def _within(form: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
    return {task: factor for task, factor in form.items() if task in counts}


def _least(form: Mapping[str, float], counts: Mapping[str, int], spread: float) -> float:
    weights = [*form.values()]
    return sum(weights) * detectable([counts[task] for task in form], weights, spread)

"""Which difference a study's report pool can show, before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping

from search.scoring.aggregate import Aggregate
from search.scoring.intervals import detectable
from search.scoring.pools import NAMES
from search.trial.tasks import Tasks

REPORT = NAMES[-1]
SHARES = (0, 1)  # bounds of scores whose differences are points of a hundred
OTHERWISE = 0.2  # of the items two models are taken to answer otherwise


def shown(tasks: Tasks) -> str | None:
    """Say which true difference of two models the report pool probably shows.

    It is ``intervals.detectable``'s, with the clusters of each task as its independent items: seen
    by 4 studies of 5. Where scores are no shares of 1 it is in standard deviations of an item's
    difference, which nobody knows yet. None where all scores are exact.
    """
    clusters, exact = tasks.clusters(REPORT), tasks.exact(REPORT)
    counts = {task: len({*ids}) for task, ids in clusters.items() if task not in exact}
    forms = [_within(form, counts) for form in _forms(tasks.aggregate)]
    if not any(forms):
        return None
    shares = all(tasks.evaluators[task].bounds == SHARES for form in forms for task in form)
    spread = OTHERWISE if shares else 1.0
    least = max(_least(form, counts, spread) for form in forms if form)
    items = f"the {len(tasks.pools[REPORT])} report items"
    if len({i for form in forms for i in form}) < len(tasks.evaluators):
        items += ", exact scores aside"
    if shares:
        return (
            f"a difference of {100 * least:.1f} points is likely to be shown by {items}, if two "
            f"models answer {100 * OTHERWISE:.0f} % of them otherwise"
        )
    return (
        f"a difference of {least:.2f} standard deviations of an item's difference is likely to be "
        f"shown by {items}"
    )


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

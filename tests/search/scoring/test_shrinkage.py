"""Finalists are weighed by two pools, and their values drawn together by what chance explains."""

from __future__ import annotations

from statistics import mean
from typing import Any

import numpy as np
import pytest

from search.scoring.aggregate import Aggregate, Entry
from search.scoring.samples import Sample
from search.scoring.shrinkage import Evidence, evidence, weighed

MEAN = Aggregate("mean", [Entry("all", {"all": 1.0}, {})])


def answers(values: np.ndarray[Any, Any], error: float, random: Any, items: int = 100) -> Any:
    """Return graded answers around true values: item by item independent, plus what all share."""
    shared = random.normal(0, 3.0, items)
    own = random.normal(0, error * items**0.5, (len(values), items))
    return [{"all": v + shared + x} for v, x in zip(values, own, strict=True)]


def test_errors_are_those_of_pairs_not_those_of_hard_and_easy_items() -> None:
    random = np.random.default_rng(0)
    found = [evidence(MEAN, answers(np.zeros(8), 0.1, random)).square for _ in range(50)]
    assert mean(found) == pytest.approx(0.1**2 * 7 / 8, rel=0.1)  # about the mean of eight


def test_order_and_value_are_those_of_the_written_formula() -> None:
    x, y = Evidence([1.0, 2.0, 6.0], 0.5), Evidence([5.0, 4.0, 9.0], 0.25)
    found = weighed(y, x)
    precision = 0.5 / 0.5 + 1 / 0.25
    order = [(0.5 / 0.5 * a + 1 / 0.25 * b) / precision for a, b in [(-2, -1), (-1, -2), (3, 3)]]
    assert found.order == pytest.approx(order)
    spread = np.var([5, 4, 9], ddof=1) - 0.25
    share = spread / (spread + 1 / precision)
    assert found.shrunken == pytest.approx([6 + share * z for z in order])


def test_without_search_scores_the_order_is_that_of_the_select_scores() -> None:
    found = weighed(Evidence([0.2, 0.9, 0.4], 0.01))
    assert np.argsort(found.order).tolist() == [0, 2, 1]
    spread = np.var([0.2, 0.9, 0.4], ddof=1) - 0.01
    assert found.shrunken == pytest.approx(
        [0.5 + spread / (spread + 0.01) * (y - 0.5) for y in (0.2, 0.9, 0.4)]
    )


def test_finalists_that_chance_explains_have_one_value_and_still_an_order() -> None:
    found = weighed(Evidence([0.5, 0.52, 0.48], 0.1), Evidence([0.7, 0.6, 0.9], 0.1))
    assert found.shrunken == pytest.approx([0.5] * 3)
    assert int(np.argmax(found.order)) == 2


@pytest.mark.parametrize(
    ("select", "search", "order"),
    [
        (Evidence([2.0, 1.0], 0.0), Evidence([0.0, 9.0], 1.0), [0.5, -0.5]),  # exact
        (Evidence([2.0, 1.0], float("inf")), Evidence([0.0, 9.0], 1.0), [-4.5, 4.5]),
        (Evidence([2.0, 1.0], 1.0), Evidence([0.0, 9.0], float("inf")), [0.5, -0.5]),
        (Evidence([2.0, 1.0], float("inf")), None, [0.5, -0.5]),
        (Evidence([2.0], 0.0), None, [0.0]),
    ],
)
def test_what_has_no_error_decides_and_what_has_no_limits_says_nothing(
    select: Evidence, search: Evidence | None, order: list[float]
) -> None:
    found = weighed(select, search)
    assert found.order == pytest.approx(order)
    assert all(np.isfinite(found.shrunken))


def test_clusters_count_in_the_errors() -> None:
    random = np.random.default_rng(1)
    row, clusters = random.normal(size=(4, 30)), np.repeat(np.arange(30), 5)
    alike = [{"all": Sample(np.repeat(x, 5), clusters)} for x in row]
    assert evidence(MEAN, alike).square == pytest.approx(
        evidence(MEAN, [{"all": x} for x in row]).square, rel=0.1
    )


def test_the_winners_shrunken_value_is_nearer_the_truth_than_its_scores() -> None:
    random = np.random.default_rng(2)
    far: dict[str, list[float]] = {"search": [], "select": [], "shrunken": []}
    for _ in range(300):
        truth = random.normal(0, 0.05, 60)
        first = answers(truth, 0.06, random)
        finalists = np.argsort([-x["all"].mean() for x in first])[:8]
        second = answers(truth[finalists], 0.06, random)
        search, select = evidence(MEAN, [first[i] for i in finalists]), evidence(MEAN, second)
        found = weighed(select, search)
        best = int(np.argmax(found.order))
        centred = truth[finalists][best] - truth[finalists].mean()
        far["search"].append(search.centred[best] - centred)
        far["select"].append(select.centred[best] - centred)
        far["shrunken"].append(found.shrunken[best] - mean(select.values) - centred)
    high = {rule: mean(x) for rule, x in far.items()}
    assert abs(high["shrunken"]) < 0.01 < 0.02 < high["select"]

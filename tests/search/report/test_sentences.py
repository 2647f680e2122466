"""The verdict is said in words, by the interval, and the search as a whole comes first."""

from __future__ import annotations

import pytest

from search.report.sentences import Rival, sentences, verdict
from search.report.summary import Difference, Limits
from search.scoring.intervals import Estimate


def rival(role: str, name: str, low: float, high: float, **more: object) -> Rival:
    middle = (low + high) / 2
    shown = verdict(Estimate(middle, low, high))
    minus = Difference(estimate=middle, low=low, high=high, verdict=shown, **more)  # type: ignore[arg-type]
    return Rival(role, name, minus, same=False)


def parent(low: float, high: float, **more: object) -> Rival:
    return rival("the best parent", "parent:a", low, high, **more)


def simple(low: float, high: float, **more: object) -> Rival:
    return rival("the best simple merge", "simple:weight=0.9", low, high, **more)


def test_a_search_that_paid_is_said_to_have() -> None:
    overall, first, second = sentences([parent(0.1, 0.3), simple(0.05, 0.15)], 200, 1)
    assert overall == (
        "The search paid: its winner is better than the best parent (parent:a) and the best simple "
        "merge (simple:weight=0.9)."
    )
    assert first == (
        "The winner is better than the best parent (parent:a) by 0.200 (95 % interval 0.100 to "
        "0.300, paired over 200 report items)."
    )
    assert "(simple:weight=0.9) by 0.100 (95 % interval 0.050 to 0.150" in second


def test_where_a_simple_merge_does_as_well_nothing_is_shown_to_be_bought() -> None:
    overall, _, each = sentences(
        [parent(0.1, 0.3), simple(-0.02, 0.014, items_needed=12345)], 200, 1
    )
    assert overall == (
        "It is not shown that the search bought anything: no difference between its winner and the "
        "best simple merge (simple:weight=0.9) is shown; it is better than the best parent "
        "(parent:a)."
    )
    assert each == (
        "No difference between the winner and the best simple merge (simple:weight=0.9) is shown: "
        "-0.003 (95 % interval -0.020 to 0.014, paired over 200 report items). About 12,345 report "
        "items would show what was seen."
    )


def test_a_winner_that_is_worse_has_bought_nothing_and_its_loss_is_positive() -> None:
    overall, each = sentences([simple(-0.3, -0.1)], 50, 1)
    assert overall.startswith("The search bought nothing: its winner is worse than the best simple")
    assert "is worse than the best simple merge (simple:weight=0.9) by 0.200 (95 % int" in each
    assert "interval 0.100 to 0.300" in each


def test_a_winner_that_is_a_baseline_is_said_to_be_it() -> None:
    same = Rival("the uniform merge", "uniform", simple(0, 0).minus, same=True)
    overall, _, each = sentences([parent(0.1, 0.3), same], 50, 1)
    assert overall == "The search bought nothing: its winner is the uniform merge itself."
    assert each == "No candidate beat the uniform merge: the winner has its weights."


def test_after_several_looks_the_wider_interval_is_said_with_its_level() -> None:
    wide = Limits(low=-0.01, high=0.4)
    minus = simple(0.1, 0.3).minus.model_copy(
        update={"widened": wide, "verdict": "no difference shown"}
    )
    _, each = sentences([Rival("the best simple merge", "uniform", minus, same=False)], 50, 2)
    assert "+0.200 (97.5 % interval -0.010 to 0.400, which allows for 2 looks at these it" in each


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.1, 0.2, "better"),
        (0.0, 0.2, "no difference shown"),
        (-0.2, 0.0, "no difference shown"),
        (-0.2, -0.1, "worse"),
    ],
)
def test_a_limit_at_nought_shows_nothing(low: float, high: float, found: str) -> None:
    assert verdict(Estimate((low + high) / 2, low, high)) == found


def test_no_sentence_has_markup_in_it() -> None:
    several = [parent(0.1, 0.3), simple(-0.02, 0.04), simple(-0.3, -0.1)]
    assert not any(mark in x for x in sentences(several, 9, 3) for mark in "[]*`_<>")

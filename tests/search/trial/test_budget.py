"""When a search ends: by the stored trials alone."""

from __future__ import annotations

import random
from typing import Any

import pytest

from merge_core.errors import ParameterError
from merge_core.recipe.schema import Recipe
from search.spec.sections import Search
from search.trial.budget import (
    NO_CHANGE,
    Budget,
    Change,
    End,
    searched,
    seconds_left,
    since_best,
)
from search.trial.known import Known
from search.trial.trial import Measurement, Trial


def trials(*values: float | None, baselines: int = 0, took: float = 1.0) -> list[Trial]:
    """Return trials with these search values, None for failed ones; the first are baselines."""
    measured = {
        "search": Measurement({}, {"build": took / 4, "model": took / 2, "other": took / 4})
    }
    return [
        Trial(
            i,
            "failed" if value is None else "complete",
            Recipe("linear", ()),
            baseline="base" if i < baselines else None,
            value=value,
            measured=measured,
        )
        for i, value in enumerate(values)
    ]


def test_baselines_are_not_counted() -> None:
    done = trials(0.5, 0.4, 0.3, 0.2, baselines=2)
    assert searched(done) == 2
    assert Budget(3).end(Known(done)) is None
    assert Budget(2).end(Known(done)) == End("trials", "2 trials are searched")


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ((), 0),
        ((0.5, 0.4), 0),  # two baselines
        ((0.5, 0.4, 0.5, 0.3), 2),  # as good is not better
        ((0.5, 0.4, 0.6, 0.3), 1),
        ((0.5, 0.4, None, None), 2),  # one that failed is no better
        ((None, None, None, 0.1), 0),
        ((-2.0, -3.0, -1.0, -1.5, None), 2),
    ],
)
def test_trials_since_the_best_are_counted_from_the_best_of_all(values: Any, count: int) -> None:
    done = trials(*values, baselines=2)
    assert since_best(done) == count
    assert Budget(100, patience=count + 1).end(Known(done)) is None
    if count:
        assert Budget(100, patience=count).end(Known(done)) == End(
            "patience", f"{count} trials in a row were no better"
        )


def test_the_target_is_reached_by_whichever_trial() -> None:
    assert Budget(9, target=0.8).end(Known(trials(0.5, 0.79))) is None
    assert Budget(9, target=0.8).end(Known(trials(0.8, baselines=1))) == End(
        "target", "a search value of 0.8000 reaches 0.8"
    )
    assert Budget(9, target=-1.5).end(Known(trials(-2.0, None))) is None
    assert Budget(9, target=-1.5).end(Known(trials(-2.0, None, -1.0))) is not None


def test_hours_are_those_of_all_trials() -> None:
    done = trials(0.5, 0.5, 0.5, baselines=1, took=1800)
    assert Budget(9, hours=1.6).end(Known(done)) is None
    assert Budget(9, hours=1.5).end(Known(done)) == End("hours", "2 trials took 1.5 hours")


def test_a_search_that_ends_somewhere_ends_there_wherever_it_is_resumed() -> None:
    draw = random.Random(4)
    values = [None if draw.random() < 0.2 else round(draw.random(), 2) for _ in range(60)]
    done = trials(*values, baselines=5)
    for budget in (Budget(40), Budget(99, patience=7), Budget(99, target=0.9), Budget(99, 0.01)):
        ends = [i for i in range(5, 61) if budget.end(Known(done[:i]))]
        assert ends, budget
        first = ends[0]
        assert [budget.end(Known(done[:i])) for i in range(5, first)] == [None] * (first - 5)


def test_options_replace_what_the_file_says() -> None:
    search, settled = Search(trials=10, hours=2.0, patience=3, target=0.5), trials(*[0.1] * 7)
    assert Budget.of(search, NO_CHANGE, settled) == Budget(10, 2.0, 3, 0.5)
    assert Budget.of(search, Change.of(trials=20), settled) == Budget(20, 2.0, 3, 0.5)
    assert Budget.of(search, Change.of(hours=1.0), settled) == Budget(10, 1.0, 3, 0.5)


def test_more_trials_are_searched_whatever_ended_the_search_before() -> None:
    search, settled = Search(trials=5, hours=0.0001, patience=1, target=0.0), trials(*[0.1] * 7)
    budget = Budget.of(search, Change.of(more=3), settled)
    assert budget == Budget(10)
    assert Budget.of(search, Change.of(more=3, hours=4.0), settled) == Budget(10, 4.0)


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        ({"trials": 0}, "--trials: must be at least 1, got 0"),
        ({"more": -1}, "--more: must be at least 1, got -1"),
        ({"hours": 0.0}, "--hours: must be above 0, got 0.0"),
        ({"hours": float("nan")}, "--hours: expected a number, got nan"),
        (
            {"trials": 9, "more": 9},
            "--trials: cannot go with --more; name the number of all, or of more",
        ),
    ],
)
def test_an_option_that_makes_no_budget_is_refused(said: Any, rule: str) -> None:
    with pytest.raises(ParameterError) as error:
        Change.of(**said)
    assert str(error.value) == rule


def test_time_left_goes_by_the_median_of_recent_trials_or_by_the_hours() -> None:
    slow, fast = trials(*[0.1] * 30, took=100.0), trials(*[0.1] * 21, took=2.0)
    assert seconds_left([*slow, *fast], 10, None) == pytest.approx(20)
    odd = [*fast, *trials(0.1, took=500.0)]  # one that was slow says little
    assert seconds_left(odd, 10, None) == pytest.approx(20)
    assert seconds_left(slow, 10, hours=1.0) == pytest.approx(3600 - 3000)
    assert seconds_left(slow, 3, hours=1.0) == pytest.approx(300)
    assert seconds_left(slow, 3, hours=0.5) == 0.0
    assert seconds_left([], 3, None) == 0.0

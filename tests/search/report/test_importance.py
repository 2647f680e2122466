"""What is planted is found, and a knob without effect cannot be told from chance."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from merge_core.recipe.schema import Recipe
from search.report.importance import LEAST, importance
from search.samplers.steps import Measured
from search.trial.trial import Trial

UNIT = FloatDistribution(0.0, 1.0)
NOTHING = Recipe("linear", ())


def drawn(count: int, seed: int = 0, noise: float = 0.05) -> list[Trial]:
    """Return candidates whose value hangs on `a`, half as much on `b`, and on no other knob."""
    stream = random.Random(seed)
    found = []
    for i in range(count):
        params: dict[str, Any] = {name: stream.random() for name in "abcdef"}
        value = -2 * (params["a"] - 0.4) ** 2 - (params["b"] - 0.7) ** 2 + stream.gauss(0, noise)
        found.append(Trial(i, "complete", NOTHING, params=params, value=value, stderr=0.05))
    return found


KNOBS = dict.fromkeys("abcdef", UNIT)


@pytest.mark.parametrize("seed", range(2))
def test_planted_order_is_found_and_knobs_without_effect_lie_below_chance(seed: int) -> None:
    found = importance(drawn(200, seed), KNOBS)
    assert found is not None
    assert found.chance is not None
    assert [*found.knobs][:2] == ["a", "b"]
    share, error = found.knobs["a"]
    assert share - 1.96 * error > found.chance
    assert sum(share for share, _ in found.knobs.values()) == pytest.approx(1)
    below = [name for name in "cdef" if found.knobs[name][0] <= found.chance]
    assert len(below) >= 3


def test_fewer_candidates_are_less_sure() -> None:
    few, many = importance(drawn(40), KNOBS), importance(drawn(400), KNOBS)
    assert few is not None
    assert many is not None
    assert few.knobs["a"][1] > many.knobs["a"][1]


def test_same_trials_have_the_same_importance() -> None:
    assert importance(drawn(30), KNOBS) == importance(drawn(30), KNOBS)


def test_too_few_candidates_have_none() -> None:
    assert importance(drawn(LEAST - 1), KNOBS) is None


def test_baselines_and_failed_trials_do_not_count() -> None:
    trials = drawn(LEAST)
    named = Trial(LEAST, "complete", NOTHING, "base", params=trials[0].params, value=1.0)
    failed = Trial(LEAST + 1, "failed", NOTHING, params=trials[0].params)
    found = importance([*trials, named, failed], KNOBS)
    assert found is not None
    assert found.count == LEAST


def test_choice_that_decides_is_found_also_where_knobs_hang_on_it() -> None:
    stream = random.Random(1)
    ways: Mapping[str, Any] = {
        "method": CategoricalDistribution(("x", "y")),
        "density": UNIT,
        "rest": UNIT,
    }
    trials = []
    for i in range(120):
        params: dict[str, Any] = {"method": stream.choice("xy"), "rest": stream.random()}
        if params["method"] == "x":
            params["density"] = stream.random()
        value = (params["method"] == "x") + stream.gauss(0, 0.1)
        trials.append(Trial(i, "complete", NOTHING, params=params, value=value))
    found = importance(trials, ways)
    assert found is not None
    assert next(iter(found.knobs)) == "method"
    assert found.chance is not None
    assert found.knobs["method"][0] > found.chance > found.knobs["rest"][0]
    assert {*found.knobs} == {*ways}


def step(number: int, slopes: dict[str, float]) -> Trial:
    return Trial(number, "unscored", NOTHING, params={"a": 0.5}, gradient=Measured(slopes, 1.0))


def test_steps_by_gradient_give_slopes_times_ranges() -> None:
    wide = {"a": UNIT, "b": FloatDistribution(0.0, 3.0)}
    steps = [step(0, {"a": 1.0, "b": -1.0}), step(1, {"a": 3.0, "b": 1.0})]
    found = importance(steps, wide)
    assert found is not None
    assert (found.by, found.count, found.chance) == ("slopes", 2, None)
    assert found.knobs["b"] == pytest.approx((3 / 5, 0.0))
    assert found.knobs["a"] == pytest.approx((2 / 5, 1 / 5))  # stdev sqrt 2, by sqrt 2


def test_study_where_all_are_equal_has_none() -> None:
    same = [Trial(t.number, "complete", NOTHING, params={"a": 0.5}, value=1.0) for t in drawn(30)]
    assert importance(same, {"a": UNIT}) is None

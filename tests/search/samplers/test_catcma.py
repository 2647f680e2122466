"""CatCMA from replayed trials is the plain loop, and what a trial does not have teaches nothing."""

from __future__ import annotations

import statistics
from typing import Any

import cmaes
import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import create_trial

from merge_core.errors import ParameterError
from search.samplers.catcma import CatCmaSampler

SPACE: dict[str, BaseDistribution] = {
    "method": CategoricalDistribution(("linear", "ties", "slerp")),
    "x": FloatDistribution(0.0, 1.0),
    "normalize": CategoricalDistribution((True, False)),
    "y": FloatDistribution(0.0, 1.0),
}


def drawn(study: optuna.Study, seed: int, space: dict[str, BaseDistribution] = SPACE) -> Any:
    return CatCmaSampler(space, None, seed).sample_relative(study, None, {})


def told(study: optuna.Study, params: dict[str, Any], value: float) -> None:
    distributions = {name: SPACE[name] for name in params}
    study.add_trial(create_trial(params=params, distributions=distributions, value=value))


def loss(params: dict[str, Any]) -> float:
    return (params.get("x", 0) - 0.4) ** 2 + (params["method"] != "ties") + params["normalize"]


def test_draws_equal_those_of_a_plain_ask_and_tell_loop_bit_for_bit() -> None:
    plain = cmaes.CatCMAwM(
        x_space=[[0.0, 1.0]] * 2,
        c_space=[3, 2],
        mean=np.full(2, 0.5),
        cov=np.eye(2),
        sigma=1 / 6,
        population_size=8,  # 4 + floor(3 ln 4), by hand
    )
    study, generation = optuna.create_study(), []
    for number in range(24):
        plain.reseed_rng(number)
        solution = plain.ask()
        x, y = solution.x
        assert 0 < min(x, y) < max(x, y) < 1  # no draw left the box
        method, normalize = solution.c.argmax(axis=1)
        params = {"method": ("linear", "ties", "slerp")[method], "x": float(x)}
        params |= {"normalize": (True, False)[normalize], "y": float(y)}
        assert drawn(study, number) == params
        told(study, params, loss(params))
        generation.append((solution, loss(params)))
        if len(generation) == 8:
            order = sorted(range(8), key=lambda i: generation[i][1])
            plain.tell([(generation[i][0], float(rank)) for rank, i in enumerate(order)])
            generation = []


def test_choices_and_numbers_that_score_well_are_drawn_more_often() -> None:
    study = optuna.create_study()
    for number in range(64):
        params = drawn(study, number)
        told(study, params, loss(params))
    last = [drawn(study, 1000 + i) for i in range(100)]
    assert sum(p["method"] == "ties" for p in last) > 70  # of 100, with 33 by chance
    assert sum(not p["normalize"] for p in last) > 70
    assert np.median([p["x"] for p in last]) == pytest.approx(0.4, abs=0.1)


def test_what_no_trial_has_keeps_its_distribution() -> None:
    study = optuna.create_study()
    for number in range(160):  # 20 generations
        params = {k: v for k, v in drawn(study, number).items() if k in ("method", "x")}
        told(study, params, loss({**params, "normalize": False}))
    rows = [drawn(study, 1000 + i) for i in range(600)]
    spread = {name: np.std([row[name] for row in rows]) for name in ("x", "y")}
    assert spread["x"] < 0.02  # converges: from 1/6
    assert spread["y"] > 5 * spread["x"]  # told the mean instead, it would shrink alike
    share = np.mean([row["normalize"] for row in rows])
    assert abs(share - 0.5) < 4 * np.sqrt(0.25 / 600)


def test_true_and_one_are_two_choices() -> None:
    space: dict[str, BaseDistribution] = {
        "p": CategoricalDistribution((1, True, 1.0)),
        "x": FloatDistribution(0.0, 1.0),
    }
    study = optuna.create_study()
    for i in range(36):
        params = {"p": (1, True, 1.0)[i % 3], "x": 0.3 + 0.01 * i}
        trial = create_trial(params=params, distributions=space, value=float(i % 3 != 1))
        study.add_trial(trial)
    kinds = [type(drawn(study, i, space)["p"]) for i in range(200)]
    assert kinds.count(bool) > 120  # of 200, with 67 by chance


def test_grids_of_a_million_values_are_drawn_without_listing_them() -> None:
    space: dict[str, BaseDistribution] = {
        "k": IntDistribution(0, 2**40),
        "m": IntDistribution(0, 9),
        "c": CategoricalDistribution((1, 2)),
    }
    rows = [drawn(optuna.create_study(), i, space) for i in range(50)]
    assert len({row["k"] for row in rows}) == 50
    assert {row["m"] for row in rows} <= set(range(10))


def test_a_start_without_the_numbers_of_other_methods_will_do() -> None:
    study = optuna.create_study()
    rows = [
        CatCmaSampler(SPACE, {"method": "ties", "x": 0.2}, i, 0.01).sample_relative(study, None, {})
        for i in range(100)
    ]
    assert np.median([row["x"] for row in rows]) == pytest.approx(0.2, abs=0.01)
    assert np.median([row["y"] for row in rows]) == pytest.approx(0.5, abs=0.01)


def test_choices_alone_and_numbers_alone_are_searched_too() -> None:
    for names in (("method", "normalize"), ("x", "y"), ("method",)):
        space = {name: SPACE[name] for name in names}
        study = optuna.create_study()
        for number in range(30):
            params = drawn(study, number, space)
            told(study, params, loss({"method": "ties", "normalize": False, **params}))
        assert study.best_trial.params.get("method", "ties") == "ties"
        assert study.best_trial.params.get("x", 0.4) == pytest.approx(0.4, abs=0.05)


def test_wrong_spaces_and_studies_are_named() -> None:
    with pytest.raises(ParameterError, match="catcma needs a knob with more than one value, got n"):
        CatCmaSampler({"x": FloatDistribution(1.0, 1.0)}, None, 0)
    two = optuna.create_study(directions=["minimize"] * 2)
    with pytest.raises(ParameterError, match="catcma has one objective, the study 2; use tpe or n"):
        drawn(two, 0)
    study = optuna.create_study(sampler=CatCmaSampler(SPACE, None, 0))
    with pytest.raises(ParameterError, match=r"z: catcma was made for the knobs method, x, .* can"):
        study.ask({**SPACE, "z": FloatDistribution(0.0, 1.0)})


def test_the_mean_has_the_most_probable_choice_and_numbers_where_good_ones_are() -> None:
    study = optuna.create_study()
    for i in range(200):
        params = drawn(study, i)
        told(study, params, loss(params))
    found = CatCmaSampler(SPACE, None, 0).generation_mean(study)
    assert found.keys() == SPACE.keys()
    best = min(study.trials, key=lambda t: t.value)
    assert all(found[name] == x for name, x in best.params.items() if isinstance(x, str))
    assert loss(found) <= statistics.median(t.value for t in study.trials[-50:])

"""qmc is scipy's sequence, nsga2 is Optuna's algorithm, without anything kept beside the trials."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import NSGAIISampler
from optuna.trial import TrialState, create_trial
from scipy.stats.qmc import Sobol

from merge_core.errors import ParameterError
from search.samplers.ask import ask, seed_for, seed_of_study
from search.samplers.nsga2 import POPULATION, Nsga2Sampler
from search.samplers.qmc import QmcSampler
from search.samplers.registry import find

UNIT = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(3)}
MIXED = {"a": FloatDistribution(0.0, 2.0), "b": CategoricalDistribution(("p", "q"))}


def test_the_trials_of_qmc_are_the_points_of_one_scrambled_sobol_sequence_in_order() -> None:
    study = optuna.create_study()
    baseline = create_trial(
        params=dict.fromkeys(UNIT, 0.3),
        distributions=UNIT,
        value=0.0,
        user_attrs={"baseline": "uniform"},
    )
    study.add_trial(baseline)
    for number in range(16):
        trial = ask(study, UNIT, find("qmc"), None, study_seed=3, settled=number + 5)
        if number % 3:  # the others stay in flight
            state = TrialState.FAIL if number % 3 == 1 else TrialState.COMPLETE
            study.tell(trial, None if number % 3 == 1 else 1.0, state)
    points = Sobol(3, scramble=True, seed=seed_of_study(3)).random(16)
    assert [list(t.params.values()) for t in study.trials[1:]] == points.tolist()


def test_qmc_draws_every_choice_and_every_cell_of_a_grid_equally_often() -> None:
    space = {"c": CategoricalDistribution(tuple("abcd")), "k": IntDistribution(0, 3)}
    study = optuna.create_study()
    for number in range(64):
        ask(study, space, find("qmc"), None, study_seed=0, settled=number)
    for name in space:
        drawn = [t.params[name] for t in study.trials]
        assert {drawn.count(value) for value in drawn} == {16}


def test_qmc_names_what_it_cannot_do() -> None:
    with pytest.raises(ParameterError, match="qmc needs 1 to 21201 knobs with more than one value"):
        QmcSampler({"x": FloatDistribution(1.0, 1.0)}, 0)
    study = optuna.create_study(sampler=QmcSampler(UNIT, 0))
    with pytest.raises(ParameterError, match="y: qmc was made for the knobs x0, x1, x2 and cannot"):
        study.ask({**UNIT, "y": FloatDistribution(0.0, 1.0)})


def test_nsga2_draws_what_optuna_draws_with_its_attributes() -> None:
    # All but the first of a generation: for that Optuna has the parents in another order.
    ours, theirs = (optuna.create_study(directions=["minimize", "maximize"]) for _ in range(2))
    for number in range(3 * POPULATION + 7):
        seed = seed_for(0, number)
        theirs.sampler = NSGAIISampler(population_size=POPULATION, seed=seed)
        trial = theirs.ask(MIXED)
        a, b = trial.params["a"], trial.params["b"]
        if number % POPULATION:
            ours.sampler = Nsga2Sampler(MIXED, seed)
            assert ours.ask(MIXED).params == trial.params, f"trial {number}"
        theirs.tell(trial, values := [(a - 0.3) ** 2, a - (b == "p")])
        ours.add_trial(create_trial(params=trial.params, distributions=MIXED, values=values))


def test_children_of_nsga2_are_nearer_to_the_front_than_the_first_generation() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"])
    for number in range(6 * POPULATION):
        trial = ask(study, UNIT, find("nsga2"), None, study_seed=1, settled=number)
        x, y, z = trial.params.values()
        study.tell(trial, [x**2 + y + z, (1 - x) ** 2 + y + z])  # the front: y = z = 0
    off = [t.params["x1"] + t.params["x2"] for t in study.trials]
    assert sum(off[-POPULATION:]) < 0.7 * sum(off[:POPULATION])

"""Every shipped sampler keeps the contract, and finds an optimum that is known."""

from __future__ import annotations

import os
import subprocess
import sys

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import RandomSampler, TPESampler

from merge_core.errors import ParameterError, UnknownNameError
from search.samplers.ask import ask, seed_for
from search.samplers.catcma import CatCmaSampler
from search.samplers.cma import CmaSampler
from search.samplers.registry import SAMPLERS, find
from search.samplers.shipped import make_auto
from search.samplers.testing import SamplerContract, inside

PLANE = {"weight": FloatDistribution(0.0, 1.5), "density": FloatDistribution(0.1, 1.0, step=0.01)}
CHOICES = {**PLANE, "method": CategoricalDistribution(("ties", "linear"))}
PEAK = {"weight": 0.4, "density": 0.7}


class TestRandom(SamplerContract):
    name = "random"


class TestTpe(SamplerContract):
    name = "tpe"


class TestCma(SamplerContract):
    name = "cma-es"
    categoricals = False


class TestCatcma(SamplerContract):
    name = "catcma"


class TestAuto(SamplerContract):
    name = "auto"


class TestAutoOfNumbers(SamplerContract):
    name = "auto"
    categoricals = False


class TestNsga2(SamplerContract):
    name = "nsga2"


class TestQmc(SamplerContract):
    name = "qmc"


@pytest.mark.slow
class TestGp(SamplerContract):
    name = "gp"
    trials = 13


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "tolerance"), [("tpe", 0.08), ("cma-es", 0.03), ("catcma", 0.03)])
@pytest.mark.slow
def test_finds_the_known_optimum_of_a_toy_landscape(name: str, tolerance: float, seed: int) -> None:
    study, maker = optuna.create_study(direction="maximize"), find(name)
    for number in range(80):
        trial = ask(study, PLANE, maker, None, study_seed=seed, settled=number)
        study.tell(trial, -sum((trial.params[k] - PEAK[k]) ** 2 for k in PEAK))
    assert study.best_params == pytest.approx(PEAK, abs=tolerance)


@pytest.mark.slow
def test_gp_finds_the_known_optimum_in_few_trials() -> None:
    study, maker = optuna.create_study(direction="maximize"), find("gp")
    for number in range(25):
        trial = ask(study, PLANE, maker, None, study_seed=0, settled=number)
        study.tell(trial, -sum((trial.params[k] - PEAK[k]) ** 2 for k in PEAK))
    assert study.best_params == pytest.approx(PEAK, abs=0.08)


@pytest.mark.parametrize("baseline", [False, True])
def test_tpe_draws_what_optuna_draws_without_being_told_the_space(baseline: bool) -> None:
    ours, theirs = (optuna.create_study(direction="maximize") for _ in range(2))
    if baseline:  # a trial with fewer knobs
        known = {"params": {"weight": 1.0}, "distributions": {"weight": PLANE["weight"]}}
        for study in (ours, theirs):
            study.add_trial(optuna.trial.create_trial(value=0.0, **known))
    for number in range(20):
        seed = seed_for(0, number)
        theirs.sampler = TPESampler(seed=seed, multivariate=True, n_startup_trials=10)
        ours.sampler = find("tpe")(CHOICES, None, seed)
        drawn = [study.ask(dict(CHOICES)) for study in (ours, theirs)]
        assert drawn[0].params == drawn[1].params
        for study, trial in zip((ours, theirs), drawn, strict=True):
            study.tell(trial, -abs(trial.params["weight"] - 0.4))


def test_the_shipped_samplers_are_known_by_name() -> None:
    names = {"auto", "catcma", "cma-es", "gp", "moves", "nsga2", "qmc", "random", "tpe"}
    assert names <= set(SAMPLERS.names())
    assert all(find(name).name == name and find(name).meaning for name in names)


def test_a_mistyped_sampler_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match=r"no sampler is named 'cmaes' \(did you mean 'cma-"):
        SAMPLERS.get("cmaes")


def test_auto_is_cma_es_for_numbers_and_catcma_for_choices() -> None:
    assert isinstance(make_auto(PLANE, None, 0), CmaSampler)
    assert isinstance(make_auto(CHOICES, None, 0), CatCmaSampler)


def test_auto_takes_a_single_choice_for_a_number() -> None:
    assert isinstance(
        make_auto({**PLANE, "m": CategoricalDistribution(("ties",))}, None, 0), CmaSampler
    )


def test_cma_es_names_the_knobs_with_choices_and_the_samplers_to_use() -> None:
    with pytest.raises(
        ParameterError, match="got choices for method; use the sampler catcma, tpe or auto"
    ):
        CmaSampler(CHOICES, None, 0)


def test_cma_es_searches_near_a_start_and_wider_without_one() -> None:
    def spread(start: dict[str, float] | None) -> float:
        study = optuna.create_study()
        drawn = [CmaSampler(PLANE, start, s).sample_relative(study, None, {}) for s in range(200)]
        return max(x["weight"] for x in drawn) - min(x["weight"] for x in drawn)

    assert spread({"weight": 0.75, "density": 0.5}) < 0.75 * spread(None)


def test_seeds_are_32_bits_and_do_not_repeat_soon() -> None:
    seeds = {seed_for(7, number) for number in range(2000)}
    assert len(seeds) == 2000
    assert 0 <= min(seeds) < 2**24 < 2**32 - 2**24 < max(seeds) < 2**32


def test_golden_seed() -> None:
    # By `printf '7\x1f0' | b2sum -l 32`; a change would alter the trials of saved studies.
    assert seed_for(7, 0) == 0xB8A2B7C6


def test_ask_returns_a_running_trial_with_a_value_for_every_knob() -> None:
    study = optuna.create_study()
    trial = ask(study, CHOICES, find("tpe"), None, study_seed=0, settled=0)
    assert trial.params.keys() == CHOICES.keys()
    assert all(inside(trial.params[name], CHOICES[name]) for name in CHOICES)
    assert study.trials[0].state == optuna.trial.TrialState.RUNNING


def test_ask_hands_the_maker_the_space_the_start_and_the_seed_of_this_ask() -> None:
    calls = []

    def maker(space: object, start: object, seed: int) -> RandomSampler:
        calls.append((space, start, seed))
        return RandomSampler(seed=seed)

    study = optuna.create_study()
    for settled in (5, 5, 6):  # the second is asked while the first is in flight
        ask(study, PLANE, maker, PEAK, study_seed=3, settled=settled)
    assert calls == [(PLANE, PEAK, seed_for(3, number)) for number in (5, 6, 8)]


def test_blas_keeps_to_one_thread_during_an_ask_only() -> None:
    from threadpoolctl import threadpool_info

    def threads() -> set[int]:
        return {x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"}

    during = []

    class Spy(RandomSampler):
        def infer_relative_search_space(self, study, trial):  # type: ignore[no-untyped-def]
            during.append(threads())
            return super().infer_relative_search_space(study, trial)

    before = threads()
    ask(optuna.create_study(), PLANE, lambda *_args: Spy(seed=0), None, study_seed=0, settled=0)
    assert (during, threads()) == ([{1}], before)


def test_knowing_the_samplers_names_imports_nothing_heavy() -> None:
    code = "import search.samplers.registry as s, sys; s.SAMPLERS.names(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"optuna", "cmaes", "numpy", "torch"} & set(loaded.stdout.split())


DRAWS = """
import optuna, sys
from hashlib import blake2b
from search.samplers.ask import ask
from search.samplers.registry import find
from search.samplers.testing import CHOICES, NUMBERS, toy_score
optuna.logging.set_verbosity(optuna.logging.WARNING)
for name in sys.argv[1:]:
    space = {k: d for k, (d, _) in {**NUMBERS, **(CHOICES if name != "cma-es" else {})}.items()}
    study = optuna.create_study(direction="maximize")
    for number in range(30):
        trial = ask(study, space, find(name), None, 0, number)
        study.tell(trial, toy_score(trial.params))
    print(name, blake2b(repr([t.params for t in study.trials]).encode()).hexdigest())
"""


@pytest.mark.slow
def test_trials_depend_on_neither_hash_seed_nor_number_of_threads() -> None:
    names = [name for name in SAMPLERS.names() if find(name).make.__module__.startswith("search.")]
    names.remove("gradient")  # it draws nothing
    printed = [
        subprocess.run(
            [sys.executable, "-c", DRAWS, *names],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads},
        ).stdout
        for seed, threads in (("0", "1"), ("1", "2"))
    ]
    assert printed[0] == printed[1]
    assert len(printed[0].splitlines()) == len(names) > 8

"""CMA-ES from replayed trials is the plain ask-and-tell loop, and learns from what it should."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from statistics import NormalDist
from typing import Any

import cmaes
import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from merge_core.errors import ParameterError
from search.samplers import cma
from search.samplers.ask import mean_of
from search.samplers.cma import CmaSampler

UNIT = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(6)}
SIGMA = 1 / 6


def score(params: dict[str, float]) -> float:
    return -sum((x - 0.1 * i) ** 2 for i, x in enumerate(params.values()))


def searched(
    space: dict[str, Any],
    trials: int,
    value: Callable[[dict[str, float]], float] = score,
    **options: Any,
) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    settings = {"start": None, **options}
    for number in range(trials):
        study.sampler = CmaSampler(space, seed=number, **settings)
        trial = study.ask(space)
        study.tell(trial, value(trial.params))
    return study


def drawn(study: optuna.Study, space: dict[str, Any] = UNIT, seed: int = 99) -> dict[str, Any]:
    sampler = CmaSampler(space, None, seed)
    return sampler.sample_relative(study, None, {})


def complete(params: dict[str, Any], value: float, **attributes: Any) -> optuna.trial.FrozenTrial:
    distributions = {name: UNIT[name] for name in params}
    return create_trial(
        params=params, distributions=distributions, value=value, user_attrs=attributes
    )


def test_draws_equal_those_of_a_plain_ask_and_tell_loop_bit_for_bit() -> None:
    plain = cmaes.CMA(np.full(6, 0.5), SIGMA, bounds=np.array([[0.0, 1.0]] * 6))
    rows, generation = [], []
    for number in range(50):
        plain.reseed_rng(number)
        x = plain.ask()
        rows.append(x.tolist())
        generation.append((x, -score(dict(zip(UNIT, x, strict=True)))))
        if len(generation) == plain.population_size:
            plain.tell(generation)
            generation = []
    ours = searched(UNIT, 50).trials
    assert [list(t.params.values()) for t in ours] == rows


@pytest.mark.parametrize(("knobs", "size"), [(6, 9), (11, 11), (22, 13), (192, 19)])
def test_a_generation_has_the_size_of_hansens_formula(knobs: int, size: int) -> None:
    # Golden: 4 + floor(3 ln d), eq. 48 of arXiv:1604.00772, by hand.
    space = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(knobs)}
    first = searched(space, 0)
    for _ in range(2):
        first.add_trial(
            create_trial(params=dict.fromkeys(space, 0.2), distributions=space, value=1)
        )
    for i in range(size - 3):
        params = dict.fromkeys(space, 0.3 + 0.01 * i)
        first.add_trial(create_trial(params=params, distributions=space, value=0))
    unmoved = drawn(optuna.create_study(), space)
    assert drawn(first, space) == unmoved
    first.add_trial(create_trial(params=dict.fromkeys(space, 0.9), distributions=space, value=-1))
    assert drawn(first, space) != unmoved


def test_a_minimised_study_with_flipped_scores_draws_the_same() -> None:
    up, down = searched(UNIT, 30), optuna.create_study(direction="minimize")
    for t in up.trials:
        down.add_trial(create_trial(params=t.params, distributions=t.distributions, value=-t.value))
    assert drawn(down) == drawn(up)


@pytest.mark.parametrize(
    "stranger",
    [
        complete(dict.fromkeys(UNIT, 0.9), 5.0, baseline="uniform"),
        complete({"x0": 0.9}, 5.0),
        create_trial(
            params={**dict.fromkeys(UNIT, 0.9), "y": 1.0},
            distributions={**UNIT, "y": FloatDistribution(0.0, 1.0)},
            value=5.0,
        ),
        create_trial(
            state=TrialState.FAIL, params=dict.fromkeys(UNIT, 0.9), distributions=dict(UNIT)
        ),
        create_trial(
            state=TrialState.PRUNED, params=dict.fromkeys(UNIT, 0.9), distributions=dict(UNIT)
        ),
        create_trial(state=TrialState.COMPLETE, value=5.0),
    ],
    ids=["baseline", "fewer knobs", "more knobs", "failed", "pruned", "no knobs"],
)
def test_only_complete_searched_trials_of_this_space_enter_a_generation(
    stranger: optuna.trial.FrozenTrial,
) -> None:
    clean, mixed = searched(UNIT, 20), optuna.create_study(direction="maximize")
    for number, trial in enumerate(clean.trials):
        mixed.add_trial(trial)
        if number % 3 == 0:
            mixed.add_trial(stranger)
    assert drawn(mixed) == drawn(clean)


def test_the_trials_of_an_unfinished_generation_wait() -> None:
    assert drawn(searched(UNIT, 9)) == drawn(searched(UNIT, 17))
    assert drawn(searched(UNIT, 17)) != drawn(searched(UNIT, 18))


def test_without_a_trial_the_draws_surround_the_start() -> None:
    space = {
        "plain": FloatDistribution(-1.0, 3.0),
        "log": FloatDistribution(1e-4, 1.0, log=True),
        "step": FloatDistribution(0.1, 1.0, step=0.01),
        "int": IntDistribution(0, 100),
    }
    start = {"plain": 2.0, "log": 1e-3, "step": 0.4, "int": 30, "of another space": 7}
    study = optuna.create_study()
    rows = [CmaSampler(space, start, s, 0.03).sample_relative(study, None, {}) for s in range(300)]
    medians = {name: float(np.median([row[name] for row in rows])) for name in space}
    # The median of 300 normal draws: standard error 1.25 sigma / sqrt(300) = 0.0022 of the range.
    assert medians["plain"] == pytest.approx(2.0, abs=4 * 0.0022 * 4)
    assert np.log(medians["log"]) == pytest.approx(np.log(1e-3), abs=4 * 0.0022 * np.log(1e4))
    assert medians["step"] == pytest.approx(0.4, abs=4 * 0.0022 * 0.9 + 0.005)
    assert medians["int"] == pytest.approx(30, abs=4 * 0.0022 * 100 + 0.5)


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_a_start_on_the_boundary_is_fine(edge: float) -> None:
    study = searched(UNIT, 40, start=dict.fromkeys(UNIT, edge))
    assert all(0 <= x <= 1 for t in study.trials for x in t.params.values())
    assert study.best_value > score(dict.fromkeys(UNIT, edge))


@pytest.mark.parametrize(
    "knob",
    [
        FloatDistribution(0.1, 1.0, step=0.01),
        FloatDistribution(0.0, 0.3, step=0.1),
        IntDistribution(-3, 11, step=2),
        IntDistribution(1, 5, log=True),
    ],
)
def test_every_grid_value_survives_the_way_into_the_cube_and_back(
    knob: FloatDistribution | IntDistribution,
) -> None:
    n = round((knob.high - knob.low) / (knob.step or 1)) + 1
    for value in (knob.low + i * (knob.step or 1) for i in range(n)):
        value = min(value, knob.high)
        box = CmaSampler({"k": knob}, {"k": value}, 0, 1e-9)
        assert box.sample_relative(optuna.create_study(), None, {}) == {"k": value}


def test_every_value_of_a_grid_is_drawn_as_often_as_its_cell_of_equal_width_says() -> None:
    # Closed form: a normal draw around the middle, sd a quarter of the range, cells of a quarter.
    space, study = {"k": IntDistribution(0, 3)}, optuna.create_study()
    rows = [CmaSampler(space, None, s, 0.25).sample_relative(study, None, {}) for s in range(2000)]
    counts = np.bincount([row["k"] for row in rows], minlength=4)
    edges = NormalDist(0.5, 0.25)
    share = np.diff([0, *(edges.cdf(x) for x in (0.25, 0.5, 0.75)), 1])
    assert abs(counts - 2000 * share).max() < 4 * np.sqrt(2000 / 4)


def test_a_single_value_is_left_to_optuna() -> None:
    space = {**UNIT, "fixed": FloatDistribution(0.5, 0.5), "m": CategoricalDistribution(("a",))}
    trial = searched(space, 12, value=lambda p: score({k: p[k] for k in UNIT})).trials[-1]
    assert (trial.params["fixed"], trial.params["m"]) == (0.5, "a")
    assert trial.params.keys() == space.keys()


def test_a_grid_value_is_left_as_often_as_the_margin_says_however_small_the_step_size() -> None:
    # arXiv:2205.13482: every knob leaves its value with probability of at least 1 / (d * size).
    space = {"k": IntDistribution(0, 9), "x": FloatDistribution(0.0, 1.0)}
    study = searched(space, 150, value=lambda p: -((p["k"] - 7) ** 2) - p["x"])
    last = [t.params["k"] for t in study.trials[-30:]]
    assert np.median(last) == 7
    left = np.mean([drawn(study, space, seed)["k"] != 7 for seed in range(1500)])
    assert left > 1 / (2 * 6) - 4 * np.sqrt(1 / 12 / 1500)


def test_above_200_knobs_the_draws_are_those_of_the_separable_strategy_bit_for_bit() -> None:
    space = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(201)}
    plain = cmaes.SepCMA(np.full(201, 0.5), SIGMA, bounds=np.array([[0.0, 1.0]] * 201))
    generation = []
    ours = searched(space, 60, value=lambda p: -sum(p.values())).trials
    for number in range(60):
        plain.reseed_rng(number)
        x = plain.ask()
        assert list(ours[number].params.values()) == x.tolist()
        generation.append((x, sum(x.tolist())))
        if len(generation) == 19:  # 4 + floor(3 ln 201), by hand
            plain.tell(generation)
            generation = []


def filled(rows: Iterable[float], value: Callable[[float], float]) -> optuna.Study:
    """Return a study of one knob."""
    space, study = {"k": FloatDistribution(0.0, 1.0)}, optuna.create_study()
    for x in rows:
        study.add_trial(create_trial(params={"k": x}, distributions=space, value=value(x)))
    return study


def test_without_any_difference_the_search_starts_again_elsewhere_with_twice_the_generation() -> (
    None
):
    space, rows = {"k": FloatDistribution(0.0, 1.0)}, [0.4, 0.5, 0.6, 0.7] * 3

    def place(study: optuna.Study) -> float:  # its standard error: 1.25 / 6 / sqrt(400) = 0.01
        return statistics.median(drawn(study, space, seed)["k"] for seed in range(400))

    flat = filled(rows, lambda x: 1.0)
    assert 0.4 < place(filled(rows[:8], lambda x: 1.0)) < 0.6  # not yet: among what was drawn
    places = [place(flat), place(filled([0.3, *rows[1:-1], 0.2], lambda x: 1.0))]
    assert abs(places[0] - places[1]) > 0.05  # seeded by the trials
    for more, moved in ((7, False), (8, True)):  # a generation of one knob is 4
        later = [0.11 * (i + 1) for i in range(more)]
        longer = filled([*rows, *later], lambda x: 1.0 if x in rows else x)
        assert (place(longer) != places[0]) is moved


def test_a_search_that_has_converged_starts_again() -> None:
    space = {"k": FloatDistribution(0.0, 1.0)}
    tight = filled((0.5 + 1e-6 * i for i in range(4)), lambda x: x)
    draws = [drawn(tight, space, seed)["k"] for seed in range(400)]
    assert statistics.stdev(draws) > 0.05  # one more generation would draw within 1e-3


def test_what_a_process_remembers_is_what_a_replay_from_the_first_trial_gives() -> None:
    def asked_in_turn(fresh: bool) -> list[dict[str, float]]:
        one, two = (searched(UNIT, 40, value=f) for f in (score, lambda p: -score(p)))
        shorter = optuna.create_study(direction="maximize")
        for trial in one.trials[:25]:
            shorter.add_trial(trial)
        answers = []
        for study in (one, two, one, shorter, one):
            if fresh:
                cma._replay.cache_clear()
            answers.append(drawn(study))
        return answers

    assert asked_in_turn(fresh=False) == asked_in_turn(fresh=True)


def test_a_long_search_on_a_coarse_grid_raises_no_warning() -> None:
    space = {"k": IntDistribution(0, 9), "x": FloatDistribution(0.0, 1.0, step=0.25)}
    study = searched(space, 120, value=lambda p: -((p["k"] - 7) ** 2) - p["x"])
    assert study.best_params == {"k": 7, "x": 0.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"space": {"m": CategoricalDistribution((1, 2))}},
            "draws numbers only, got choices for m",
        ),
        ({"space": {"x": FloatDistribution(1.0, 1.0)}}, "needs a knob with more than one value"),
        ({"space": {}}, "cma-es needs a knob with more than one value, got none"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        CmaSampler(**{"space": UNIT, "start": None, "seed": 0, **arguments})


def test_a_knob_outside_the_space_is_refused() -> None:
    study = optuna.create_study(sampler=CmaSampler(UNIT, None, 0))
    with pytest.raises(
        ParameterError, match=r"y: cma-es was made for the knobs x0, x1, .* and cannot"
    ):
        study.ask({**UNIT, "y": FloatDistribution(0.0, 1.0)})


@pytest.mark.slow
def test_told_the_middles_of_cells_the_margin_does_as_well_as_told_the_numbers_drawn() -> None:
    """The numbers behind grid values are not in a trial; ``cmaes`` itself remembers them."""
    space = {f"x{i}": FloatDistribution(0.0, 1.0, step=0.1) for i in range(12)}
    peak = np.array([0.2 + 0.6 * (i % 2) for i in range(12)])

    def loss(values: Any) -> float:
        return float(((np.array(list(values)) - peak) ** 2).sum())

    def remembering(seed: int) -> float:
        edges, cell = np.array([[0.5 / 11, 10.5 / 11]] * 12), np.full(12, 1 / 11)
        plain = cmaes.CMAwM(np.full(12, 0.5), SIGMA, bounds=edges, steps=cell, seed=seed)
        found, generation = [], []
        for _ in range(180):
            grid, number = plain.ask()
            found.append(loss(grid * 1.1 - 0.05))
            generation.append((number, found[-1]))
            if len(generation) == plain.population_size:
                plain.tell(generation)
                generation = []
        return min(found)

    def ours(seed: int) -> float:
        study = optuna.create_study()
        for number in range(180):
            study.sampler = CmaSampler(space, None, 1000 * seed + number)
            trial = study.ask(space)
            study.tell(trial, loss(trial.params.values()))
        return study.best_value

    differences = [ours(seed) - remembering(seed) for seed in range(12)]
    error = np.std(differences, ddof=1) / np.sqrt(12)
    assert np.mean(differences) < 2 * error


def test_the_mean_is_the_last_whole_generations_weighted_mean() -> None:
    study = searched(UNIT, 9 + 4)
    rows = [list(t.params.values()) for t in study.trials[:9]]
    best = sorted(rows, key=lambda row: -score(dict(zip(UNIT, row, strict=True))))[:4]
    weights = np.log((9 + 1) / 2) - np.log(np.arange(1, 5))  # eq. 49 of arXiv:1604.00772
    found = CmaSampler(UNIT, None, 0).generation_mean(study)
    assert list(found) == list(UNIT)
    assert list(found.values()) == pytest.approx(weights / weights.sum() @ np.array(best))


def test_there_is_no_mean_before_a_generation_and_it_stays_when_the_search_starts_again() -> None:
    assert CmaSampler(UNIT, None, 0).generation_mean(searched(UNIT, 8)) is None
    space = {"k": FloatDistribution(0.0, 1.0)}
    tight = filled((0.7 + 1e-6 * i for i in range(4)), lambda x: x)
    assert CmaSampler(space, None, 0).generation_mean(tight)["k"] == pytest.approx(0.7, abs=1e-5)


def test_a_mean_lies_on_the_grid_and_has_a_value_for_knobs_that_have_one_only() -> None:
    space = {"k": IntDistribution(0, 10), "one": FloatDistribution(0.5, 0.5)}
    study = searched(space, 12, value=lambda p: -abs(p["k"] - 3))
    found = mean_of(study, space, lambda *x: CmaSampler(*x), None, 0)
    assert found["one"] == 0.5
    assert found["k"] in range(2, 5)
    random = optuna.samplers.RandomSampler
    assert mean_of(study, space, lambda space, start, seed: random(seed), None, 0) is None

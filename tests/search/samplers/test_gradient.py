"""A search by gradient on landscapes that are known: where it goes, looks, turns back and ends."""

import math
from collections import Counter

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from merge_core.errors import ParameterError
from search.samplers.batches import BATCH, Batches
from search.samplers.cube import Cube
from search.samplers.gradient import CUTS, LOOK, PATIENCE, RATE, GradientSearch
from search.samplers.steps import Measured

PEAK = {"a": 0.3, "b": 1.2, "c": 0.02}
SPACE = {
    "a": FloatDistribution(0.0, 1.5),
    "b": FloatDistribution(-1.0, 1.0),  # the peak lies outside
    "c": FloatDistribution(1e-3, 1.0, log=True),
    "method": CategoricalDistribution(("ties", "linear")),
    "density": FloatDistribution(0.1, 1.0, step=0.1),
}
SMOOTH = frozenset(PEAK)
START = {"a": 1.0, "b": 0.0, "c": 0.5, "method": "ties", "density": 0.4}
SIZES = {"add": 100, "sort": 60}


def search(start=START, sizes=SIZES, seed=0):
    return GradientSearch(SPACE, SMOOTH, start, clusters(sizes), seed)


def clusters(sizes, members=1):
    """Task -> clusters of so many items each."""
    return {task: [str(i // members) for i in range(n)] for task, n in sizes.items()}


def loss(point):
    flat = {**point, "c": math.log(point["c"])}
    peak = {**PEAK, "c": math.log(PEAK["c"])}
    return sum((flat[name] - peak[name]) ** 2 for name in PEAK)


def answer(step):
    """What a study would measure at a step."""
    point = step.point
    slopes = {name: 2 * (point[name] - PEAK[name]) for name in ("a", "b")}
    slopes["c"] = 2 * math.log(point["c"] / PEAK["c"]) / point["c"]
    held_out = loss(point) if step.look else None
    return Measured({} if step.mean else slopes, held_out=held_out, mean=step.mean)


def run(search, most, measure=answer, done=()):
    done, steps = list(done), []
    while (step := search.next(done, most)) is not None:
        steps.append(step)
        done.append(measure(step))
    return steps, done


def test_steps_come_to_the_peak_or_to_the_end_of_a_range_that_is_nearest():
    steps, _ = run(search(), 400)
    best = min(steps, key=lambda step: loss(step.point)).point
    assert best["a"] == pytest.approx(PEAK["a"], abs=0.02)
    assert best["b"] == 1.0
    assert math.log(best["c"]) == pytest.approx(math.log(PEAK["c"]), abs=0.1)


def test_no_step_leaves_a_range_and_what_has_no_slope_stays():
    steps, _ = run(search(), 60)
    for step in steps:
        assert 0.0 <= step.point["a"] <= 1.5
        assert -1.0 <= step.point["b"] <= 1.0
        assert 1e-3 <= step.point["c"] <= 1.0
        assert (step.point["method"], step.point["density"]) == ("ties", 0.4)


def test_first_step_is_the_start_and_the_second_a_rate_away():
    steps, _ = run(search(), 10)
    assert steps[0].point == pytest.approx(START)
    assert START["a"] - steps[1].point["a"] == pytest.approx(RATE * 1.5)
    assert math.log(START["c"] / steps[1].point["c"]) == pytest.approx(RATE * math.log(1000))


def test_search_that_is_resumed_at_any_step_goes_the_same_way():
    steps, done = run(search(), 30)
    for k in range(len(done)):
        assert run(search(), 30, done=done[:k])[0] == steps[k:]


def test_every_training_item_is_learnt_from_once_before_any_twice_and_no_held_out_one_ever():
    steps, _ = run(search(), 120)
    for task, size in SIZES.items():
        held = set(steps[0].look[task])
        assert len(held) == size // 4
        assert held <= set(range(size))
        rest = set(range(size)) - held
        times = Counter(dict.fromkeys(rest, 0))
        for step in steps[:-1]:
            times.update(step.learn[task])
            assert set(times) == rest
            assert max(times.values()) - min(times.values()) <= 1
        assert min(times.values()) >= 2


def test_a_step_learns_from_about_the_same_number_of_items_whatever_the_pool_and_all_of_few():
    step = search(sizes={"add": 3000, "sort": 1000}).next([], 10)
    assert sum(map(len, step.learn.values())) == pytest.approx(BATCH, abs=2)
    few = search(sizes={"add": 8, "sort": 4}).next([], 10)
    assert {task: len(places) for task, places in few.learn.items()} == {"add": 6, "sort": 3}


def test_pool_of_too_few_items_to_hold_any_out_is_scored_all_the_same():
    steps, _ = run(search(sizes={"add": 1, "sort": 1}), 12)
    assert [step.scored for step in steps] == [n in (0, 5, 10, 11) for n in range(12)]
    assert not any(step.look for step in steps)
    assert steps[0].learn == {"add": (0,), "sort": (0,)}


def test_other_seeds_learn_in_another_order():
    assert search(seed=0).next([], 10).learn != search(seed=1).next([], 10).learn


def test_every_fifth_step_looks_and_is_scored_and_the_mean_is_the_last():
    steps, _ = run(search(), 24)
    assert len(steps) == 24
    assert [bool(step.look) for step in steps[:-1]] == [n % LOOK == 0 for n in range(23)]
    assert [step.scored for step in steps[:-1]] == [bool(step.look) for step in steps[:-1]]
    assert steps[-1].mean
    assert steps[-1].scored
    assert not steps[-1].learn
    half = [step.point["a"] for step in steps[11:-1]]
    assert steps[-1].point["a"] == pytest.approx(sum(half) / len(half))


def worsening(step):
    """A landscape on which held-out items get worse from the start on."""
    found = answer(step)
    worse = None if found.held_out is None else 10.0 - found.held_out
    return Measured(found.slopes, held_out=worse, mean=found.mean)


def test_search_goes_back_with_a_third_of_the_rate_and_is_over_after_so_many_cuts():
    steps, done = run(search(), 1000, worsening)
    per_cut = PATIENCE * LOOK + 1  # looks without a better one, the last of them a step back
    assert steps[per_cut].point == steps[0].point  # back at the best look
    assert len(steps) < 1000
    assert steps[-1].mean
    assert sum(step.point == steps[0].point for step in steps) == CUTS + 1
    assert search().next(done, 1000) is None


def test_failed_step_is_a_step_back():
    def failing(step):
        return Measured({}) if step.point["a"] < 0.6 else answer(step)

    steps, _ = run(search(), 1000, failing)
    assert steps[-1].mean
    assert len(steps) < 1000


def test_search_that_ended_by_its_budget_goes_on_with_more_as_if_the_mean_had_not_been():
    longer, _ = run(search(), 40)
    _, done = run(search(), 24)
    assert run(search(), 41, done=done)[0][:-1] == longer[23:-1]


def test_space_without_a_knob_to_move_is_refused():
    with pytest.raises(ParameterError, match="needs a knob with a slope"):
        GradientSearch(SPACE, frozenset(), START, clusters(SIZES), 0)


def test_derivatives_of_a_cube_are_those_of_finite_differences():
    cube = Cube({name: SPACE[name] for name in PEAK})
    point, side = cube.start({"a": 0.7, "b": -0.2, "c": 0.1}), 1e-6
    found = cube.derivatives(point)
    for i, name in enumerate(cube.names):
        ends = []
        for sign in (-1, 1):
            moved = point.copy()
            moved[i] += sign * side
            ends.append(cube.values(moved)[name])
        assert found[i] == pytest.approx((ends[1] - ends[0]) / (2 * side), rel=1e-6)


def test_clusters_are_held_out_as_a_whole():
    batches = Batches(clusters({"passages": 100}, members=7), seed=0)
    held = {place // 7 for place in batches.held["passages"]}
    learnt = {place // 7 for number in range(4) for place in batches.of(number)["passages"]}
    assert not held & learnt
    assert 100 / 4 - 7 < len(batches.held["passages"]) <= 100 / 4


def test_what_is_held_out_has_nothing_to_do_with_the_order_of_the_pool():
    shares = []
    for seed in range(40):
        held = Batches(clusters({"a": 100}), seed).held["a"]
        shares.append(sum(place < 50 for place in held) / len(held))
    assert len(set(shares)) > 5
    assert abs(sum(shares) / 40 - 0.5) < 0.05  # four standard errors


def test_a_task_that_is_one_cluster_is_learnt_from():
    batches = Batches({"one": ["p"] * 9}, seed=0)
    assert not batches.held
    assert batches.of(0) == {"one": tuple(range(9))}

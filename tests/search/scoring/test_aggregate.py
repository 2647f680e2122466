"""One number from many tasks: against closed forms, and the coverage that the intervals claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from search.scoring.aggregate import Aggregate, Entry, Linear
from search.scoring.intervals import (
    Estimate,
    Sample,
    combined,
    paired_difference,
    standard_error,
)

RNG = np.random.default_rng(0)
VECTORS = {
    "a": RNG.normal(0.5, 0.1, 40),
    "b": RNG.normal(0.7, 0.2, 60),
    "c": RNG.normal(0.9, 0.1, 9),
}
OTHERS = {task: x + RNG.normal(0.02, 0.05, len(x)) for task, x in VECTORS.items()}


def entry(name, *, chance=0.0, weight=1.0):
    return Entry(name, {name: 1.0}, {name: chance} if chance else {}, weight)


def mean_interval(scores, level=0.95):
    return combined([scores], [1.0], level)


def numbers(found: Estimate):
    return found.mean, found.low, found.high


def means(vectors):
    return [x.mean() for x in vectors.values()]


# mean


def test_mean_of_single_tasks_is_the_statistics_own_to_the_last_bit():
    weights = [1.0, 0.5, 2.0]
    found = Aggregate("mean", [entry(t, weight=w) for t, w in zip("abc", weights, strict=True)])
    vectors = list(VECTORS.values())
    assert found.estimate(VECTORS) == combined(vectors, weights)
    assert found.difference(VECTORS, OTHERS) == paired_difference(
        vectors, list(OTHERS.values()), weights
    )
    assert found.value(VECTORS)[1] == standard_error(vectors, weights)


def test_chance_counts_as_nothing_and_all_right_as_one():
    found = Aggregate("mean", [entry("a", chance=0.25)])
    assert found.estimate({"a": np.r_[1.0, 0, 0, 0]}).mean == 0.0
    assert found.estimate({"a": np.ones(8)}).mean == 1.0
    raw = mean_interval(VECTORS["a"])
    expected = [(x - 0.25) / 0.75 for x in numbers(raw)]
    assert numbers(found.estimate(VECTORS)) == pytest.approx(expected)
    apart = found.difference(VECTORS, OTHERS)
    plain = paired_difference([VECTORS["a"]], [OTHERS["a"]], [1])
    assert numbers(apart) == pytest.approx([x / 0.75 for x in numbers(plain)])


def test_groups_are_averaged_first_each_task_above_its_own_chance():
    # As the Open LLM Leaderboard does it: subtasks above chance, their mean, the mean of those.
    group = Entry("group", {"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.2}, 1.0, True)
    found = Aggregate("mean", [group, entry("c", weight=3.0)]).estimate(VECTORS)
    a, b, c = means(VECTORS)
    assert found.mean == pytest.approx((((a - 0.5) / 0.5 + (b - 0.2) / 0.8) / 2 + 3 * c) / 4)


def test_shares_of_a_group_by_size_give_the_mean_over_all_its_items():
    group = Entry("group", {"a": 0.4, "b": 0.6}, {}, 1.0, True)
    found = Aggregate("mean", [group]).estimate(VECTORS)
    assert found.mean == pytest.approx(np.r_[VECTORS["a"], VECTORS["b"]].mean())
    assert Linear(group.shares).estimate(VECTORS).mean == pytest.approx(found.mean)


# min and geometric mean


def test_min_is_the_least_entry_and_keeps_its_lower_limit():
    found = Aggregate("min", [entry(t) for t in "abc"]).estimate(VECTORS)
    own = [mean_interval(x) for x in VECTORS.values()]
    strict = [mean_interval(x, 1 - 0.05 / 3) for x in VECTORS.values()]
    assert found == Estimate(
        min(means(VECTORS)), min(x.low for x in own), min(x.high for x in strict)
    )


def test_geometric_mean_is_scipys():
    found = Aggregate(
        "geometric_mean", [entry(t, weight=w) for t, w in zip("abc", (1, 2, 3), strict=True)]
    )
    assert found.estimate(VECTORS).mean == pytest.approx(
        stats.gmean(means(VECTORS), weights=[1, 2, 3])
    )


def test_geometric_mean_of_one_task_is_that_task():
    one = Aggregate("geometric_mean", [entry("a")]).estimate(VECTORS)
    # to first order: 40 items, where an interval of the logarithm is hardly skew
    assert numbers(one) == pytest.approx(numbers(mean_interval(VECTORS["a"])), rel=2e-3)


def test_geometric_mean_is_nothing_where_an_entry_is_not_above_chance():
    found = Aggregate("geometric_mean", [entry("a", chance=0.25), entry("b")])
    low = {"a": np.r_[np.ones(10), np.zeros(50)], "b": np.ones(60)}
    estimate = found.estimate(low)
    assert (estimate.mean, estimate.low) == (0.0, 0.0)
    assert 0 < estimate.high < 0.5
    more = found.difference({**low, "a": np.ones(60)}, low)
    assert more.mean == 1.0
    assert 0.5 < more.low < 1.0 <= more.high


@pytest.mark.parametrize("kind", ["min", "geometric_mean"])
def test_models_that_agree_on_every_item_have_a_width(kind):
    vectors = {t: np.r_[np.ones(40), np.zeros(10)] for t in "ab"}
    found = Aggregate(kind, [entry("a"), entry("b")]).difference(vectors, vectors)
    assert found.mean == 0.0
    assert found.low < -0.01 < 0.01 < found.high


def test_geometric_means_of_models_that_agree_differ_by_the_paired_interval_of_their_tangent():
    right = {"a": np.r_[np.ones(40), np.zeros(10)], "b": np.r_[np.ones(10), np.zeros(40)]}
    found = Aggregate("geometric_mean", [entry("a"), entry("b")]).difference(right, right)
    weights = [0.5 * 0.4 / 0.8, 0.5 * 0.4 / 0.2]  # w G / V with G = 0.4, V = 0.8 and 0.2
    paired = paired_difference([*right.values()], [*right.values()], weights)
    assert numbers(found) == pytest.approx([sum(weights) * x for x in numbers(paired)])


@pytest.mark.parametrize("kind", ["mean", "min", "geometric_mean"])
def test_swapping_the_models_flips_the_difference(kind):
    found = Aggregate(kind, [entry(t) for t in "abc"])
    flipped = found.difference(OTHERS, VECTORS).flipped()
    assert numbers(found.difference(VECTORS, OTHERS)) == pytest.approx(numbers(flipped))


def test_difference_of_minima_in_one_clear_entry_is_that_entrys_a_little_wider():
    ours = {"a": VECTORS["a"], "b": VECTORS["b"] + 5}
    theirs = {"a": OTHERS["a"], "b": OTHERS["b"] + 5}
    found = Aggregate("min", [entry("a"), entry("b")]).difference(ours, theirs)
    alone = paired_difference([ours["a"]], [theirs["a"]], [1], 0.96)
    assert numbers(found) == pytest.approx(numbers(alone))


@pytest.mark.parametrize("kind", ["min", "geometric_mean"])
def test_standard_error_is_the_intervals(kind):
    found = Aggregate(kind, [entry(t) for t in "abc"])
    estimate = found.estimate(VECTORS)
    expected = (estimate.high - estimate.low) / 2 / stats.norm.ppf(0.975)
    assert found.value(VECTORS) == (estimate.mean, pytest.approx(expected))


# coverage, 95 % asked

TRUTH = {"min": min, "geometric_mean": lambda p: float(stats.gmean(p))}
ROUNDS = 400
LEAST = 0.95 - 3 * math.sqrt(0.95 * 0.05 / ROUNDS)  # three standard errors of the simulation


def covered(estimates, truth):
    return sum(x.low <= truth <= x.high for x in estimates) / ROUNDS


@pytest.mark.parametrize("kind", TRUTH)
@pytest.mark.parametrize(
    "right", [(0.5, 0.5, 0.5), (0.3, 0.6, 0.9), (0.02, 0.5, 0.9), (0.99, 0.98)]
)
def test_interval_covers_the_truth(kind, right):
    rng = np.random.default_rng(1)
    found = Aggregate(kind, [entry(str(t)) for t in range(len(right))])

    def drawn():
        return {str(t): (rng.random(100) < p).astype(float) for t, p in enumerate(right)}

    estimates = [found.estimate(drawn()) for _ in range(ROUNDS)]
    assert covered(estimates, TRUTH[kind](right)) >= LEAST


@pytest.mark.parametrize("kind", TRUTH)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [((0.5, 0.5), (0.5, 0.5)), ((0.9, 0.5), (0.5, 0.9)), ((0.6, 0.9), (0.3, 0.9))],
)
def test_interval_of_a_difference_covers_the_truth(kind, ours, theirs):
    rng = np.random.default_rng(2)
    found = Aggregate(kind, [entry("0"), entry("1")])

    def drawn():
        sides = {}, {}
        for t, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            hard = rng.random(150)  # what is hard for one model is mostly so for the other
            again = np.where(rng.random(150) < 0.7, hard, rng.random(150))
            sides[0][str(t)] = (hard < p).astype(float)
            sides[1][str(t)] = (again < q).astype(float)
        return sides

    estimates = [found.difference(*drawn()) for _ in range(ROUNDS)]
    assert covered(estimates, TRUTH[kind](ours) - TRUTH[kind](theirs)) >= LEAST


# means alone


@pytest.mark.parametrize("kind", ["mean", "min", "geometric_mean", "apart"])
def test_number_of_means_is_that_of_the_scores_they_are_of(kind):
    found = Aggregate(kind, [entry("a", chance=0.25), entry("b", weight=2.0), entry("c")])
    known = {task: float(x.mean()) for task, x in VECTORS.items()}
    assert found.at(known) == pytest.approx(found.value(VECTORS)[0], rel=1e-12)
    assert found.values_at(known) == pytest.approx(found.values(VECTORS), rel=1e-12)


def test_geometric_mean_of_means_is_nothing_where_an_entry_is_below_guessing():
    found = Aggregate("geometric_mean", [entry("a", chance=0.25), entry("b")])
    assert found.at({"a": 0.2, "b": 0.9}) == 0.0


@pytest.mark.parametrize("kind", ["mean", "min", "geometric_mean"])
def test_every_item_twice_gives_the_intervals_of_every_item_once(kind):
    found = Aggregate(kind, [entry("a", chance=0.2), entry("b"), entry("c")])

    def twice(vectors):
        return {t: Sample(np.tile(x, 2), np.tile(np.arange(len(x)), 2)) for t, x in vectors.items()}

    ours, theirs = twice(VECTORS), twice(OTHERS)
    assert numbers(found.estimate(ours)) == pytest.approx(numbers(found.estimate(VECTORS)))
    assert numbers(found.difference(ours, theirs)) == pytest.approx(
        numbers(found.difference(VECTORS, OTHERS))
    )
    assert found.value(ours) == pytest.approx(found.value(VECTORS))


@pytest.mark.parametrize("kind", ["mean", "geometric_mean"])
def test_an_exact_task_leaves_the_interval_finite_and_adds_no_width(kind):
    found = Aggregate(kind, [entry("a"), entry("b")])
    exact = {"a": VECTORS["a"], "b": Sample(np.ones(1), exact=True)}
    alone = Aggregate(kind, [entry("a")]).estimate({"a": VECTORS["a"]})
    both = found.estimate(exact)
    assert math.isfinite(both.low)
    expected = (alone.high - alone.low) / 2
    if kind == "geometric_mean":
        expected = math.sqrt(alone.high) - math.sqrt(alone.low)
    assert both.high - both.low == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("kind", ["mean", "min", "geometric_mean"])
def test_items_to_show_agree_with_whether_the_interval_leaves_zero_out(kind):
    found = Aggregate(kind, [entry("a", chance=0.2), entry("b"), entry("c")])
    for shift in (-0.02, 0.002, 0.05):
        ours = {t: x + shift for t, x in OTHERS.items()}
        difference = found.difference(ours, VECTORS)
        shown = difference.low > 0 or difference.high < 0
        assert (found.items_to_show(ours, VECTORS) <= 109) == shown
    assert found.items_to_show(VECTORS, VECTORS) is None

"""Intervals against closed forms, scipy, limit cases, and the coverage they claim."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from merge_core.errors import NonFiniteError, ParameterError
from search.scoring.intervals import (
    Estimate,
    combined,
    linearised,
    paired_difference,
    standard_error,
)

Z = 1.959963984540054  # stats.norm.ppf(0.975)


def zero_one(right: int, n: int) -> np.ndarray:
    return np.r_[np.ones(right), np.zeros(n - right)]


def mean_interval(scores: npt.ArrayLike, level: float = 0.95) -> Estimate:
    return combined([scores], [1.0], level)


def numbers(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.mean, estimate.low, estimate.high


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 20), (7, 20), (20, 20), (350, 700)])
def test_zero_one_scores_get_the_wilson_interval(right: int, n: int) -> None:
    theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
    ours = mean_interval(zero_one(right, n))
    assert numbers(ours) == pytest.approx((right / n, theirs.low, theirs.high), abs=1e-12)


def test_golden_wilson_interval() -> None:
    # Newcombe, Statist. Med. 17 (1998) 857, table I: 81 of 263, 95 %: 0.2553 to 0.3662.
    assert numbers(mean_interval(zero_one(81, 263)))[1:] == pytest.approx(
        (0.2553, 0.3662), abs=5e-5
    )


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_other_scores_get_the_student_interval(level: float) -> None:
    scores = np.random.default_rng(0).normal(3.0, 2.0, 12)
    theirs = stats.ttest_1samp(scores, 0.0).confidence_interval(level)
    ours = mean_interval(scores, level)
    assert numbers(ours) == pytest.approx((scores.mean(), theirs.low, theirs.high), rel=1e-12)


def test_one_item_that_is_not_zero_or_one_has_infinite_limits() -> None:
    assert numbers(mean_interval([0.3])) == (0.3, -math.inf, math.inf)
    assert standard_error([[0.3], [1.0, 0.0]], [1, 1]) == math.inf


def test_one_item_that_is_not_zero_or_one_makes_the_limits_of_the_sum_infinite() -> None:
    assert numbers(combined([[0.5], zero_one(3, 4)], [1, 1])) == (0.625, -math.inf, math.inf)


def test_equal_scores_that_are_not_zero_or_one_have_no_width() -> None:
    assert numbers(mean_interval([0.5, 0.5, 0.5])) == (0.5, 0.5, 0.5)


def test_all_right_still_has_a_width_and_never_passes_one() -> None:
    all_right = combined([np.ones(50), np.ones(80)], [1, 3])
    assert (all_right.mean, all_right.high) == (1.0, 1.0)
    assert 0.95 < all_right.low < 0.99


def test_flipping_the_sign_of_every_score_flips_the_interval() -> None:
    tasks = [zero_one(9, 10), zero_one(30, 90), np.linspace(0, 2, 7)]
    plain, flipped = (combined([s * task for task in tasks], [1, 2, 3]) for s in (1, -1))
    assert numbers(flipped) == pytest.approx((-plain.mean, -plain.high, -plain.low), abs=1e-12)


def test_scaling_all_weights_changes_nothing() -> None:
    tasks = [zero_one(9, 10), np.linspace(0, 2, 7)]
    assert numbers(combined(tasks, [10, 30])) == pytest.approx(numbers(combined(tasks, [1, 3])))


def test_order_of_the_tasks_changes_nothing() -> None:
    tasks, weights = [zero_one(9, 10), zero_one(0, 5), np.linspace(0, 2, 7)], [1, 2, 3]
    back = combined(tasks[::-1], weights[::-1])
    assert numbers(back) == pytest.approx(numbers(combined(tasks, weights)), abs=1e-14)


def test_continuous_tasks_get_the_stratified_welch_satterthwaite_interval() -> None:
    rng = np.random.default_rng(1)
    one, two = rng.normal(1, 1, 9), rng.normal(2, 4, 15)
    # The mean of one and -two with equal weights is half of Welch's difference of two means.
    welch = stats.ttest_ind(one, two, equal_var=False).confidence_interval(0.95)
    ours = combined([one, -two], [1, 1])
    assert (2 * ours.low, 2 * ours.high) == pytest.approx((welch.low, welch.high), rel=1e-12)


def test_large_zero_one_tasks_approach_the_plain_stratified_interval() -> None:
    tasks, weights = [zero_one(30_000, 100_000), zero_one(40_000, 50_000)], [0.25, 0.75]
    plain = Z * math.sqrt(0.25**2 * 0.3 * 0.7 / 1e5 + 0.75**2 * 0.8 * 0.2 / 5e4)
    ours = combined(tasks, weights)
    assert ours.high - ours.low == pytest.approx(2 * plain, rel=1e-4)


def test_equal_tasks_get_nearly_the_interval_of_one_task_with_all_items() -> None:
    # Not exactly: items that are spread over tasks lose one degree of freedom per task.
    split, whole = combined([zero_one(45, 50)] * 4, [1] * 4), mean_interval(zero_one(180, 200))
    assert numbers(split) == pytest.approx(numbers(whole), abs=1e-3)


def test_a_task_of_next_to_no_weight_does_not_move_the_interval() -> None:
    alone = mean_interval(zero_one(5, 9))
    assert numbers(combined([zero_one(5, 9), [1.0]], [1, 1e-200])) == pytest.approx(numbers(alone))


def test_standard_error_of_many_zero_one_items_is_the_textbook_one() -> None:
    tasks, weights = [zero_one(300, 1000), zero_one(1600, 2000)], [1, 3]
    textbook = math.sqrt(0.25**2 * 0.21 / 1000 + 0.75**2 * 0.16 / 2000)
    assert standard_error(tasks, weights) == pytest.approx(textbook, rel=2e-3)


def test_standard_error_of_a_continuous_task_is_that_of_scipy() -> None:
    scores = np.random.default_rng(2).exponential(1.0, 30)
    assert standard_error([scores], [5.0]) == pytest.approx(stats.sem(scores), rel=1e-12)


def test_standard_error_of_all_right_is_not_zero() -> None:
    assert standard_error([np.ones(100)], [1]) == pytest.approx(Z / 2 / (100 + Z**2))


def test_paired_difference_of_one_continuous_task_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(3)
    a = rng.normal(0, 1, 25)
    b = a + rng.normal(0.2, 0.3, 25)
    theirs = stats.ttest_rel(a, b).confidence_interval(0.95)
    ours = paired_difference([a], [b], [1])
    assert numbers(ours) == pytest.approx((np.mean(a - b), theirs.low, theirs.high), rel=1e-12)


def test_paired_difference_of_one_zero_one_task_is_bonett_and_prices() -> None:
    # By hand, n = 10, b = 3, c = 1: p12 = 4/12, p21 = 2/12, centre 1/6, and
    # half = 1.96 * sqrt((1/2 - 1/36) / 12) = 1.96 * sqrt(17/432) = 0.38881.
    a, b = zero_one(5, 10), np.array([1, 1, 0, 0, 0, 1, 0, 0, 0, 0.0])
    half = Z * math.sqrt(17 / 432)
    ours = paired_difference([a], [b], [1])
    assert numbers(ours) == pytest.approx((0.2, 1 / 6 - half, 1 / 6 + half), rel=1e-12)


def test_swapping_the_models_flips_the_paired_difference() -> None:
    a = [zero_one(5, 10), np.linspace(0, 1, 6)]
    b = [zero_one(2, 10), np.linspace(0, 3, 6)]
    there, back = paired_difference(a, b, [1, 2]), paired_difference(b, a, [1, 2])
    assert numbers(back) == pytest.approx((-there.mean, -there.high, -there.low), abs=1e-15)


def test_models_that_agree_on_every_zero_one_item_still_have_a_width() -> None:
    same = [zero_one(150, 300)]
    ours = paired_difference(same, same, [1])
    half = Z * math.sqrt(2) / 302
    assert numbers(ours) == pytest.approx((0.0, -half, half))


def test_models_that_agree_on_every_other_item_differ_by_exactly_nothing() -> None:
    same = [[0.1, 0.7, 0.3]]
    assert numbers(paired_difference(same, same, [1])) == (0.0, 0.0, 0.0)


def test_pairing_is_narrower_than_two_separate_intervals() -> None:
    rng = np.random.default_rng(4)
    ease = rng.normal(0, 1, 200)
    a, b = (ease + rng.normal(0, 0.1, 200) for _ in range(2))
    paired, alone = paired_difference([a], [b], [1]), mean_interval(a)
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)


def test_nan_scores_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="task 1: 1 of 2 scores are nan or infinite"):
        combined([[1.0], [0.0, math.nan]], [1, 1])


def test_pairs_of_other_items_are_refused() -> None:
    with pytest.raises(ParameterError, match="task 0: paired scores need the same items, got 2 "):
        paired_difference([[1.0, 0.0]], [[1.0]], [1])


REPEATS = 2000  # 4 binomial standard errors of a share of 0.95: 0.019; of 0.99: 0.009
SIZES = [(100, 100, 100), (100, 300, 700), (6,) * 57]


def coverage(estimates: list[Estimate], truth: float) -> float:
    return float(np.mean([e.low <= truth <= e.high for e in estimates]))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("shares", [0.01, 0.03, 0.5, 0.9, 0.98, (0.02, 0.5, 0.97)])
def test_combined_interval_of_zero_one_tasks_covers_the_truth(
    sizes: tuple[int, ...], shares: float | tuple[float, ...]
) -> None:
    rng = np.random.default_rng(5)
    p = np.resize(shares, len(sizes))
    weights = np.resize([3.0, 2.0, 1.0], len(sizes))
    draws = [[rng.random(n) < q for q, n in zip(p, sizes, strict=True)] for _ in range(REPEATS)]
    share = coverage([combined(x, weights) for x in draws], float(p @ weights / weights.sum()))
    assert 0.93 - 0.01 <= share <= 0.99 + 0.009, share  # 2 se below, 4 se above the nominal band


@pytest.mark.slow
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("right", [(0.5, 0.5), (0.6, 0.5), (0.9, 0.88), (0.3, 0.1)])
def test_paired_interval_of_correlated_zero_one_items_covers_the_truth(
    sizes: tuple[int, ...], right: tuple[float, float]
) -> None:
    rng = np.random.default_rng(6)

    def items(n: int) -> tuple[np.ndarray, np.ndarray]:
        ease = rng.random(n)  # the other model meets the same ease on 4 of 5 items
        other = np.where(rng.random(n) < 0.8, ease, rng.random(n))
        return (ease < right[0]) * 1.0, (other < right[1]) * 1.0

    draws = [list(zip(*(items(n) for n in sizes), strict=True)) for _ in range(REPEATS)]
    weights = np.resize([3.0, 2.0, 1.0], len(sizes))
    share = coverage([paired_difference(a, b, weights) for a, b in draws], right[0] - right[1])
    assert 0.93 <= share <= 0.99, share


@pytest.mark.slow
def test_combined_interval_of_mixed_tasks_covers_the_truth() -> None:
    rng = np.random.default_rng(7)
    draws = [
        [rng.normal(1, 0.3, 100), rng.random(300) < 0.97, rng.exponential(1, 200)]
        for _ in range(REPEATS)
    ]
    share = coverage([combined(x, [1, 1, 1]) for x in draws], (1 + 0.97 + 1) / 3)
    assert 0.93 <= share <= 0.99, share


def test_linearised_scores_have_the_ratio_as_their_mean_and_the_jackknifes_variance() -> None:
    rng = np.random.default_rng(4)
    sizes = rng.integers(20, 400, 300).astype(float)
    scores = rng.normal(2.0, 0.5, 300) + 20 / sizes
    values = linearised(scores, sizes)
    assert values.mean() == pytest.approx((scores * sizes).sum() / sizes.sum(), rel=1e-13)
    without = [np.average(np.delete(scores, i), weights=np.delete(sizes, i)) for i in range(300)]
    jackknife = 299 / 300 * ((without - np.mean(without)) ** 2).sum()
    assert values.var(ddof=1) / 300 == pytest.approx(jackknife, rel=0.03)  # equal to first order


def test_linearised_scores_of_equal_sizes_are_the_scores() -> None:
    scores = np.array([0.3, 0.9, 0.1])
    assert linearised(scores, [7, 7, 7]) == pytest.approx(scores, rel=1e-15)


def test_difference_of_linearised_scores_is_the_difference_of_the_ratios() -> None:
    rng = np.random.default_rng(5)
    sizes, a, b = rng.integers(1, 50, 40), rng.normal(size=40), rng.normal(size=40)
    found = paired_difference([linearised(a, sizes)], [linearised(b, sizes)], [1])
    expected = np.average(a, weights=sizes) - np.average(b, weights=sizes)
    assert found.mean == pytest.approx(expected, rel=1e-12)


def test_interval_of_a_ratio_covers_the_truth() -> None:
    rng = np.random.default_rng(6)  # long documents are easier; truth by integrating a gamma law

    def drawn() -> Estimate:
        sizes = 50 + rng.gamma(2.0, 100.0, 60)
        scores = 1.0 + 30 / sizes + rng.normal(0, 0.2, 60)
        return mean_interval(linearised(scores, sizes))

    truth = 1.0 + 30 / 250  # E[d x] / E[d], as E[d] = 250
    assert 0.93 <= coverage([drawn() for _ in range(4000)], truth) <= 0.97

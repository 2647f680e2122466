"""Intervals of items that come in clusters: closed forms, limit cases, the coverage they claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr, ndtri

from merge_core.errors import ParameterError
from search.scoring.intervals import (
    Estimate,
    Sample,
    combined,
    detectable,
    items_to_show,
    paired_difference,
    standard_error,
)

RNG = np.random.default_rng(0)
BINARY = (RNG.random(60) < 0.8) * 1.0
OTHER = np.where(RNG.random(60) < 0.3, 1 - BINARY, BINARY)
GRADED = RNG.normal(0.5, 0.2, 40)
FIVES = np.repeat(np.arange(12), 5)


@pytest.fixture(autouse=True)
def own_stream():
    """Every test draws the same numbers, whichever ran before it."""
    global RNG
    RNG = np.random.default_rng(1)


def numbers(found: Estimate) -> tuple[float, float, float]:
    return found.mean, found.low, found.high


def twice(values: np.ndarray) -> Sample:
    return Sample(np.tile(values, 2), np.tile(np.arange(len(values)), 2))


def cluster_robust_error(values: np.ndarray, clusters: np.ndarray) -> float:
    """Return what OLS on a constant reports with cov_type="cluster", without its (n-1)/(n-k)."""
    residuals = values - values.mean()
    names = np.unique(clusters)
    meat = sum(residuals[clusters == g].sum() ** 2 for g in names)
    return math.sqrt(len(names) / (len(names) - 1) * meat) / len(values)


@pytest.mark.parametrize("values", [BINARY, GRADED, np.ones(30), -BINARY])
def test_items_that_are_each_a_cluster_have_the_interval_of_items_to_the_last_bit(values):
    alone = Sample(values, RNG.permutation(10 * len(values))[: len(values)])
    assert combined([alone], [1]) == combined([values], [1])
    assert standard_error([alone, GRADED], [1, 2]) == standard_error([values, GRADED], [1, 2])
    changed = values[::-1].copy()
    assert paired_difference([alone], [Sample(changed, alone.clusters)], [1]) == paired_difference(
        [values], [changed], [1]
    )


@pytest.mark.parametrize("values", [BINARY, GRADED, np.ones(30), np.r_[np.ones(29), 0.0], -BINARY])
def test_every_item_twice_gives_the_interval_of_every_item_once(values):
    found = combined([twice(values)], [1])
    assert numbers(found) == pytest.approx(numbers(combined([values], [1])), rel=1e-9)


@pytest.mark.parametrize(("a", "b"), [(BINARY, OTHER), (BINARY, BINARY), (GRADED, GRADED**2)])
def test_every_pair_twice_gives_the_paired_interval_of_every_pair_once(a, b):
    found = paired_difference([twice(a)], [twice(b)], [1])
    assert numbers(found) == pytest.approx(numbers(paired_difference([a], [b], [1])), rel=1e-9)


def test_graded_clusters_have_the_cluster_robust_error_and_students_quantile():
    values = GRADED[FIVES[:40]] + RNG.normal(0, 0.05, 40)  # 8 clusters of 5
    error = cluster_robust_error(values, FIVES[:40])
    assert standard_error([Sample(values, FIVES[:40])], [1]) == pytest.approx(error, rel=1e-12)
    found = combined([Sample(values, FIVES[:40])], [1])
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 7) * error, rel=1e-12)


def test_many_zero_one_clusters_have_the_cluster_robust_error():
    ease = np.repeat(RNG.random(2000), 5)
    values, clusters = (RNG.random(10_000) < ease) * 1.0, np.repeat(np.arange(2000), 5)
    other = (RNG.random(10_000) < ease) * 1.0
    error = cluster_robust_error(values, clusters)
    assert standard_error([Sample(values, clusters)], [1]) == pytest.approx(error, rel=2e-3)
    apart = paired_difference([Sample(values, clusters)], [Sample(other, clusters)], [1])
    error = cluster_robust_error(values - other, clusters)
    assert apart.high - apart.low == pytest.approx(2 * 1.96 * error, rel=5e-3)  # rho is near 0


def test_clusters_of_unequal_size_have_the_error_of_a_ratio():
    sizes = RNG.integers(1, 10, 400)
    clusters = np.repeat(np.arange(400), sizes)
    values = RNG.normal(0, 1, 400)[clusters] + RNG.normal(0, 1, len(clusters))
    sums, ratio = np.bincount(clusters, values), values.mean()
    # Cochran, Sampling Techniques (1977), equation 2.46, without its correction for finite N.
    cochran = math.sqrt(((sums - ratio * sizes) ** 2).sum() / 399 / 400) / sizes.mean()
    assert standard_error([Sample(values, clusters)], [1]) == pytest.approx(cochran, rel=3e-3)


def test_clusters_that_differ_less_than_items_would_do_not_narrow_an_interval():
    values = np.tile([1.0, 0.0], 30)
    pairs = Sample(values, np.repeat(np.arange(30), 2))
    width, alone = (x.high - x.low for x in (combined([pairs], [1]), combined([values], [1])))
    assert alone < width < 1.01 * alone
    values = np.tile([0.7, 0.2], 30)
    found, alone = combined([Sample(values, pairs.clusters)], [1]), combined([values], [1])
    assert numbers(found) == pytest.approx(numbers(alone))


def test_clusters_count_as_items_where_all_are_right_or_all_agree():
    right = Sample(np.ones(60), FIVES)
    assert numbers(combined([right], [1])) == pytest.approx(numbers(combined([np.ones(12)], [1])))
    apart = paired_difference([right], [right], [1])
    assert numbers(apart) == pytest.approx(
        numbers(paired_difference([np.ones(12)], [np.ones(12)], [1]))
    )


def test_clusters_of_a_task_with_all_right_are_worth_what_those_of_other_tasks_are():
    rng, right = np.random.default_rng(3), np.ones(200)
    clusters = np.repeat(np.arange(40), 5)
    beside = Sample((rng.random(1000) < 0.7) * 1.0, np.arange(1000) // 5)
    width = [
        combined([Sample(right, c), beside], [1, 0.01])
        for c in (clusters, None, np.arange(200) // 5)
    ]
    assert width[0] == width[2]
    assert width[0].low == pytest.approx(width[1].low, abs=0.004)  # 200 items, nearly: rho is 0
    assert combined([Sample(right, clusters)], [1]).low < width[0].low - 0.05  # 40 items


def test_many_tasks_of_few_clusters_do_not_widen_an_interval_beyond_its_need():
    rng, pairs = np.random.default_rng(4), np.repeat(np.arange(3), 2)
    draws = [(rng.random((57, 6)) < 0.7) * 1.0 for _ in range(200)]
    widths = [combined([Sample(x, pairs) for x in tasks], [1] * 57) for tasks in draws]
    needed = 2 * 1.96 * math.sqrt(0.7 * 0.3 / (57 * 6))
    assert needed < np.mean([x.high - x.low for x in widths]) < 1.12 * needed


def test_order_and_numbers_of_the_clusters_change_nothing():
    moved = RNG.permutation(60)
    names = RNG.permutation(1000)[:12]
    found = combined([Sample(BINARY[moved], names[FIVES][moved])], [1])
    assert numbers(found) == pytest.approx(numbers(combined([Sample(BINARY, FIVES)], [1])))


def test_graded_items_of_one_cluster_have_no_limits_and_zero_one_items_those_of_one_item():
    one = np.zeros(40, dtype=int)
    assert numbers(combined([Sample(GRADED, one)], [1]))[1:] == (-math.inf, math.inf)
    assert standard_error([Sample(GRADED, one)], [1]) == math.inf
    found = combined([Sample(np.ones(40), one)], [1])
    assert numbers(found) == pytest.approx(numbers(combined([[1.0]], [1])))
    beside = combined([Sample(BINARY[:40], one), np.ones(1000)], [1, 1])
    assert 0 <= beside.low < beside.mean < beside.high <= 1


def test_an_exact_score_has_no_width_and_adds_none():
    size = Sample(np.full(3, -7.5), exact=True)
    assert numbers(combined([size], [1])) == (-7.5, -7.5, -7.5)
    assert numbers(combined([Sample(np.full(1, -7.5), exact=True)], [1])) == (-7.5, -7.5, -7.5)
    assert standard_error([size], [1]) == 0.0
    found, alone = combined([BINARY, size], [1, 1]), combined([BINARY], [1])
    assert numbers(found) == pytest.approx([(x - 7.5) / 2 for x in numbers(alone)])
    less = Sample(np.full(3, -9.0), exact=True)
    assert numbers(paired_difference([size], [less], [1])) == (1.5, 1.5, 1.5)
    assert numbers(combined([Sample(np.ones(4), exact=True)], [1])) == (1.0, 1.0, 1.0)


def test_pairs_in_other_clusters_are_refused():
    with pytest.raises(ParameterError, match="task 0: paired scores need the same clusters"):
        paired_difference([Sample(BINARY, FIVES)], [BINARY], [1])


def clustered(rng: np.random.Generator, sizes: np.ndarray, correlation: float) -> np.ndarray:
    """Draw 0/1 items, half of them right, of this correlation in a cluster (exact at one half)."""
    shared = math.sin(math.pi / 2 * correlation)  # of the normal variables behind them
    z = np.repeat(rng.normal(0, math.sqrt(shared), len(sizes)), sizes)
    found: np.ndarray = z + rng.normal(0, math.sqrt(1 - shared), len(z))
    return found


@pytest.mark.parametrize(
    "sizes", [[2] * 50, [5] * 40, [10] * 30, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] * 6]
)
@pytest.mark.parametrize("correlation", [0.0, 0.25, 0.5])
def test_intervals_of_clusters_cover_the_truth(sizes, correlation):
    rng = np.random.default_rng(8)
    sizes = np.array(sizes)
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    hits = []
    for _ in range(800):
        a, b = (clustered(rng, sizes, correlation) for _ in "ab")
        one, other = (Sample((z < ndtri(p)) * 1.0, clusters) for z, p in ((a, 0.7), (b, 0.6)))
        graded = Sample(ndtr(a), clusters)
        found = (
            (combined([one], [1]), 0.7),
            (paired_difference([one], [other], [1]), 0.1),
            (combined([graded], [1]), 0.5),
        )
        hits.append([e.low <= truth <= e.high for e, truth in found])
    share = np.mean(hits, axis=0)
    assert (share > 0.92).all(), share  # 0.95 less 4 binomial standard errors
    assert (share < 0.99).all(), share


def test_intervals_without_clusters_miss_the_truth_of_clustered_items():
    rng = np.random.default_rng(9)
    sizes = np.full(100, 5)
    draws = [clustered(rng, sizes, 0.25) < 0 for _ in range(400)]
    naive = [combined([x], [1]) for x in draws]
    assert np.mean([e.low <= 0.5 <= e.high for e in naive]) < 0.88


# planning


def test_items_to_show_is_where_the_paired_interval_leaves_zero_out():
    a = [Sample(BINARY, FIVES), GRADED]
    b = [Sample(OTHER, FIVES), GRADED - RNG.normal(0.02, 0.2, 40)]
    seen = paired_difference(a, b, [1, 1])
    needed = items_to_show(seen.mean, a, b, [1, 1])
    shown = seen.low > 0 or seen.high < 0
    assert needed is not None
    assert (needed <= 100) == shown
    back = items_to_show(-seen.mean, b, a, [1, 1])
    assert back == needed


def test_items_to_show_is_the_textbook_number_for_many_items():
    a = np.r_[np.ones(6200), np.zeros(3800)]
    b = np.r_[np.ones(5000), np.zeros(3800), np.ones(1200)]  # 1200 + 1200 discordant
    needed = items_to_show(0.01, [a], [b], [1])
    assert needed == pytest.approx(1.96**2 * 0.24 / 0.01**2, rel=0.01)
    graded = items_to_show(0.1, [GRADED], [GRADED[::-1]], [1])
    spread = (GRADED - GRADED[::-1]).std(ddof=1)
    n = np.arange(3, 200)
    student = n[stats.t.ppf(0.975, n - 1) * spread / np.sqrt(n) < 0.1][0]
    assert graded == student


def test_items_to_show_nothing_or_with_an_unknown_variance_is_none():
    assert items_to_show(0.0, [BINARY], [OTHER], [1]) is None
    assert items_to_show(0.1, [[0.5]], [[0.4]], [1]) is None


def test_detectable_difference_is_the_textbook_one():
    # 7.84 * .2 / .05^2 = 627 items; a little less is needed as d^2 is no variance.
    assert detectable([627], [1]) == pytest.approx(0.05, rel=0.01)
    assert detectable([200, 200], [1, 1]) == pytest.approx(detectable([400], [2]))
    assert detectable([1], [1]) < 1  # no difference of shares is more than 1


def test_detectable_difference_is_shown_by_its_share_of_paired_intervals():
    rng, hits = np.random.default_rng(10), 0
    d, only = detectable([300], [1]), 0.2
    for _ in range(2000):
        kind = rng.choice(3, 300, p=[(only + d) / 2, (only - d) / 2, 1 - only])
        a, b = (kind == 0) * 1.0, (kind == 1) * 1.0
        hits += paired_difference([a], [b], [1]).low > 0
    assert hits / 2000 == pytest.approx(0.8, abs=0.04)

"""The control-variate estimate: unbiased in every order, sharper than the mean, honest errors."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from search.scoring.control_variate import COLUMNS, estimated
from search.scoring.intervals import Vector
from search.scoring.units import Units


def alone(number: int) -> Units:
    return Units.of({"t": [f"c{i}" for i in range(number)]}, 0)


def one(y: Vector, columns: Vector, units: Units) -> tuple[float, float]:
    return estimated({"t": y}, {"t": columns}, units)["t"]


def models(stream: np.random.Generator, items: int, others: int, graded: bool) -> Vector:
    """Return ``(others + 1, items)`` scores of models that find the same items easy."""
    easy = stream.normal(0, 1.5, items)
    skill = stream.normal(0.5, 0.5, (others + 1, 1))
    chance = 1 / (1 + np.exp(-(easy + skill + stream.normal(0, 0.7, (others + 1, items)))))
    return chance if graded else (stream.uniform(size=chance.shape) < chance).astype(float)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("seen", [1, 2, 3, 4])
def test_the_mean_over_all_orders_of_a_tiny_pool_is_the_truth(graded, seen):
    scores = models(np.random.default_rng(seen), 7, 3, graded)
    found = [
        one(scores[0, order][:seen], scores[1:, order], alone(7))[0]
        for order in map(list, itertools.permutations(range(7), seen))
        for order in [order + [i for i in range(7) if i not in order]]
    ]
    assert len(found) == math.perm(7, seen)
    assert np.mean(found) == pytest.approx(scores[0].mean(), abs=1e-12)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize(("seen", "others", "most"), [(10, 3, 1.0), (40, 12, 0.9), (100, 40, 0.9)])
def test_random_prefixes_have_no_bias_and_covering_errors_and_less_spread_than_the_mean(
    graded, seen, others, most
):
    stream = np.random.default_rng(seen)
    away, plain, covered = [], [], []
    for _ in range(250):
        scores = models(stream, 160, others, graded)
        truth = scores[0].mean()
        value, error = one(scores[0, :seen], scores[1:], alone(160))
        away.append(value - truth)
        plain.append(scores[0, :seen].mean() - truth)
        covered.append(abs(value - truth) < 1.96 * error)
    assert abs(np.mean(away)) < 3 * np.std(away) / math.sqrt(250)
    assert np.std(away) < most * np.std(plain)
    assert 0.91 <= np.mean(covered) <= 0.99


def test_the_variance_is_what_the_correlation_leaves_of_the_means():
    stream = np.random.default_rng(4)
    away, plain = [], []
    for _ in range(400):
        known = stream.normal(size=300)
        y = 0.8 * known + 0.6 * stream.normal(size=300)  # rho = .8
        away.append(one(y[:100], known[None], alone(300))[0] - y.mean())
        plain.append(y[:100].mean() - y.mean())
    ratio = np.var(away) / np.var(plain)
    low, high = stats.f.ppf([0.001, 0.999], 399, 399)
    assert low < ratio / (1 - 0.8**2) < high * 1.1


def test_a_column_that_is_the_candidate_is_found_among_many_and_leaves_next_to_nothing():
    stream = np.random.default_rng(5)
    scores = models(stream, 300, 2 * COLUMNS, graded=False)
    columns = np.vstack([scores[1:], scores[:1]])
    value, error = one(scores[0, :150], columns, alone(300))
    wider = one(scores[0, :150], scores[1:], alone(300))[1]
    assert error < wider / 2
    assert abs(value - scores[0].mean()) <= 3 * error


def test_all_that_is_seen_is_the_mean_without_error():
    scores = models(np.random.default_rng(6), 40, 5, graded=True)
    assert one(scores[0], scores[1:], alone(40)) == (scores[0].mean(), 0.0)
    value, error = one(scores[0, :39], scores[1:], alone(40))
    assert value == pytest.approx(scores[0].mean(), abs=0.03)
    assert error < 0.02


def test_nothing_seen_is_the_other_models_mean():
    columns = np.array([[1.0, 0, 1, 0], [1.0, 1, 1, 1]])
    assert one(np.empty(0), columns, alone(4)) == (0.75, math.sqrt(0.125))


def test_a_prefix_that_is_all_right_has_an_error_that_is_not_0():
    columns = models(np.random.default_rng(7), 100, 4, graded=False)
    for seen in (1, 2, 20):
        value, error = one(np.ones(seen), columns, alone(100))
        assert math.isfinite(value)
        assert error > 0.003


def test_items_of_one_cluster_are_in_one_fold_and_count_as_one_for_the_error():
    stream = np.random.default_rng(8)
    units = Units.of({"t": [f"p{i // 6}" for i in range(240)]}, 0)
    covered, ratios = [], []
    for _ in range(250):
        passages = np.repeat(stream.normal(0, 0.7, (4, 40)), 6, axis=1)
        scores = (passages + stream.normal(0, 1, (4, 240)) > 0).astype(float)
        value, error = one(scores[0, :90], scores[1:], units)
        covered.append(abs(value - scores[0].mean()) < 1.96 * error)
        ratios.append(error / one(scores[0, :90], scores[1:], alone(240))[1])
    assert 0.88 <= np.mean(covered) <= 0.99
    assert np.mean(ratios) > 1.3


def test_constant_scores_are_estimated_as_they_are():
    value, error = one(np.full(10, 0.3), np.full((3, 40), 0.5), alone(40))
    assert value == pytest.approx(0.3, abs=1e-12)
    assert error == pytest.approx(0.0, abs=1e-12)


def test_each_task_has_its_own_estimate():
    stream = np.random.default_rng(9)
    units = Units.of({t: [f"{t}{i}" for i in range(60)] for t in "ab"}, 0)
    both = {t: models(stream, 60, 4, graded=False) for t in "ab"}
    found = estimated(
        {t: x[0, :30] for t, x in both.items()}, {t: x[1:] for t, x in both.items()}, units
    )
    alone_ = estimated({"b": both["b"][0, :30]}, {"b": both["b"][1:]}, units)
    assert found["b"] == alone_["b"]
    assert found["a"] != found["b"]

"""What a candidate that was seen on a prefix would score on the whole pool.

Other models' scores of every item (parents, earlier trials) tell which items are easy. With ``g_i``
a prediction of the candidate's score from them, what is left over is all that the prefix must show:

    y_i  candidate's score, i in the prefix of k items      N  items of the task in the pool
    mu   mean of g over all N + mean of (y - g) over the prefix

Unbiased for every ``g`` that was not fitted to the items it is taken from, with the variance of the
plain mean times ``1 - rho^2``. So the units of the prefix are dealt out to folds; each fold has a
``g`` fitted to the other folds (the items T), and estimates what neither T nor a sample says:

    mu_v = (sum_T y + sum_{not T} g + (N - |T|) mean_v(y - g)) / N      mu = sum_v (k_v / k) mu_v

which is exactly unbiased (given T, fold v is a random sample of the rest) and, unlike
``mean_all(g) + mean_v(y - g)``, the pool's mean itself once all is seen.

``g`` is a ridge regression on the columns' mean and the columns' deviations from it, shrunken to
.7 of the mean, its strength by leave-one-out errors of the items in T. A mean of equal columns is
worth most with 20 items; which columns are worth more shows with more items.

Sources: Cochran, Sampling Techniques (1977), chapter 7 (regression and difference estimators);
Särndal, Swensson and Wretman, Model Assisted Survey Sampling (1992), section 6; cross-fitting:
Chernozhukov et al., Econometrics J. 21 (2018) C1; Golub, Heath and Wahba, Technometrics 21 (1979)
215 (leave-one-out errors of a ridge).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from search.scoring.intervals import Vector
from search.scoring.units import Units

FOLDS = 5
COLUMNS = 24  # at most that one fit uses, those that go best with the candidate
SLOPE = 0.7  # of a candidate's scores by the columns' mean, before any is seen
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)  # of the ridge, in items
OF_MEAN = 3.0  # so much less is the slope by the mean shrunken than those by deviations

Matrix = npt.NDArray[np.float64]


def estimated(
    seen: Mapping[str, Vector], others: Mapping[str, Matrix], units: Units
) -> dict[str, tuple[float, float]]:
    """Return each task's mean over the whole pool, estimated from a prefix, with standard error.

    The standard error has the correction for a finite pool (0 when all is seen), counts units as
    independent, and one item of the columns' variance beside those that were seen, so that it is
    not 0 where all of a prefix is right. A task of which nothing is seen has the mean of the other
    models, and their items' standard deviation as its error.

    Args:
        seen: Task -> ``(k_t,)`` scores of the candidate on a prefix of the pool, 0 <= k_t <= n_t.
        others: Task -> ``(m, n_t)`` scores of other models on the whole pool, m >= 1, the same
            unit; no model that was chosen by what the candidate scored.
        units: The pool's.
    """
    return {
        task: _estimated(scores, np.asarray(others[task], dtype=np.float64), units.ends[task])
        for task, scores in seen.items()
    }


def _estimated(y: Vector, columns: Matrix, ends: tuple[int, ...]) -> tuple[float, float]:
    k, n = len(y), columns.shape[1]
    typical = float(columns.var(axis=1).mean())
    if k == n:
        return float(y.mean()), 0.0
    if k == 0:
        return float(columns.mean()), math.sqrt(typical)
    numbers = np.searchsorted(ends, np.arange(k), side="right")
    _, unit = np.unique(numbers, return_inverse=True)  # 0, 1, ... of the units with items
    fold = unit % FOLDS
    totals, left = [], np.empty(k)
    for v in range(min(FOLDS, unit[-1] + 1)):
        own, rest = np.flatnonzero(fold == v), np.flatnonzero(fold != v)
        g = _predicted(y[rest], columns, rest)
        left[own] = y[own] - g[own]
        unknown = n - len(rest)
        total = y[rest].sum() + g.sum() - g[rest].sum() + unknown * left[own].mean()
        totals.append(len(own) / k * total)
    return float(sum(totals)) / n, _error(left, unit, n, typical)


def _error(left: Vector, unit: npt.NDArray[np.int_], n: int, typical: float) -> float:
    """Return the standard error of a mean of what is left over, by sums over units."""
    k, count = len(left), int(unit[-1]) + 1
    sums = np.bincount(unit, left - left.mean())
    squares = float(sums @ sums) * (count / (count - 1) if count > 1 else 1.0)
    return math.sqrt((squares + typical) * (1 - k / n)) / k


def _predicted(y: Vector, columns: Matrix, train: npt.NDArray[np.int_]) -> Vector:
    """Return ``g`` of every item of the pool, fitted to the scores ``y`` of the items ``train``."""
    mean = columns.mean(axis=0)
    start: Vector = SLOPE * mean
    if len(y) < 2:
        return start
    target = y - start[train]
    features = _features(columns, mean, train, target)
    inner = features[:, train].mean(axis=1, keepdims=True)
    weights = _ridge((features[:, train] - inner).T, target - target.mean())
    predicted: Vector = start + weights @ features
    return predicted


def _features(columns: Matrix, mean: Vector, train: npt.NDArray[np.int_], target: Vector) -> Matrix:
    """Return the columns' mean and the most telling columns' deviations from it, ``(p, n)``.

    They are scaled so that one strength of the ridge is right for all: deviations together vary as
    much as the mean does.
    """
    apart = columns - mean
    if len(apart) > COLUMNS:
        inner = apart[:, train] - apart[:, train].mean(axis=1, keepdims=True)
        norms = np.sqrt((inner**2).sum(axis=1))
        told = np.abs(inner @ (target - target.mean())) / np.maximum(norms, 1e-12)
        apart = apart[np.sort(np.argsort(-told, kind="stable")[:COLUMNS])]
    scale = math.sqrt(float(mean.var())) or 1.0
    spread = math.sqrt(float(apart.var(axis=1).sum())) or 1.0
    features: Matrix = np.vstack([OF_MEAN * mean / scale, apart / spread])
    return features


def _ridge(x: Matrix, y: Vector) -> Vector:
    """Return the weights of the ridge whose leave-one-out errors are the smallest.

    Args:
        x: ``(n, p)`` centred features.
        y: ``(n,)`` centred targets.
    """
    left, values, right = np.linalg.svd(x, full_matrices=False)
    told = left.T @ y
    best, weights = math.inf, np.zeros(x.shape[1])
    for strength in STRENGTHS:
        kept = values**2 / (values**2 + strength)
        errors = (y - left @ (kept * told)) / (1 - 1 / len(y) - left**2 @ kept).clip(1e-3)
        if (found := float(errors @ errors)) < best:
            best = found
            weights = right.T @ (values / (values**2 + strength) * told)
    return weights

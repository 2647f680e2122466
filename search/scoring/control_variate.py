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

``g`` is a ridge regression on the columns' mean and the columns' deviations from it, shrunken to .9
of the mean, its strength by leave-one-out errors of the items in T. With 20 items the mean of the
columns is worth most; which columns are worth more shows with more items.

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
SLOPE = 0.9  # of a candidate's scores by the columns' mean, before any is seen
STRENGTHS = (3.0, 10.0, 30.0, 100.0, 1e3, 1e6)  # of the ridge, in items; the last: only the slope

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
    return float(np.sqrt((squares + typical) * (1 - k / n))) / k


def _predicted(y: Vector, columns: Matrix, train: npt.NDArray[np.int_]) -> Vector:
    """Return ``g`` of every item of the pool, fitted to the scores ``y`` of the items ``train``."""
    mean = columns.mean(axis=0)
    start: Vector = SLOPE * mean
    if len(y) < 2:
        return start
    target = y - start[train]
    target -= target.mean()
    features = _features(columns, mean, train, target)
    inner = features[:, train]
    weights = _ridge((inner - inner.mean(axis=1, keepdims=True)).T, target)
    predicted: Vector = start + weights @ features
    return predicted


def _features(columns: Matrix, mean: Vector, train: npt.NDArray[np.int_], target: Vector) -> Matrix:
    """Return the columns' mean and the most telling columns' deviations from it, ``(p, n)``.

    They are scaled so that one strength of the ridge is right for all: the mean varies by 1, and
    so do the deviations together.
    """
    apart = columns - mean
    if len(apart) > COLUMNS:
        weights, counted = np.zeros(len(mean)), np.zeros(len(mean))
        weights[train], counted[train] = target, 1.0  # sums without a copy of the columns
        squares = apart**2 @ counted - (apart @ counted) ** 2 / len(train)
        told = np.abs(apart @ weights) / np.sqrt(np.maximum(squares, 1e-12))
        apart = apart[np.sort(np.argsort(-told, kind="stable")[:COLUMNS])]
    scale = math.sqrt(float(mean.var())) or 1.0
    spread = math.sqrt(float(apart.var(axis=1).sum())) or 1.0
    features: Matrix = np.vstack([mean / scale, apart / spread])
    return features


def _ridge(x: Matrix, y: Vector) -> Vector:
    """Return the weights of the ridge whose leave-one-out errors are the smallest.

    Args:
        x: ``(n, p)`` centred features, n >= 2.
        y: ``(n,)`` centred targets.
    """
    values, axes = np.linalg.eigh(x.T @ x)
    along = x @ axes  # (n, p)
    told = along.T @ y
    inverses = 1 / (np.maximum(values, 0.0)[:, None] + np.array(STRENGTHS))  # (p, strengths)
    leverages = 1 / len(y) + along**2 @ inverses
    errors = (y[:, None] - along @ (told[:, None] * inverses)) / (1 - leverages).clip(1e-3)
    squares = (errors**2).sum(axis=0)
    best = int(np.flatnonzero(squares <= squares.min() * (1 + 1e-9))[-1])  # of equal ones the last
    weights: Vector = axes @ (told * inverses[:, best])
    return weights

"""When a candidate may be stopped: a test that stays valid however often it is looked at.

A claim ``sum_t f_t mean_t >= least`` about a candidate's means over the whole pool is tested unit
by unit (units.py), beside a rival whose scores of the whole pool are known:

    c_j, r_j  sum_t f_t (U / n_t) sum_{items of t in unit j}: candidate's and rival's, of U units
    m_j       (U least - sum_{i<j} c_i) / (U - j + 1): mean of the candidate's rest, were the form
              just ``least``; rho_j: the mean of the rival's rest, which is known
    y_j       c_j - m_j - s_j (r_j - rho_j): paired, with a slope s_j in [0, 1]
    W_u       mean over bets g of prod_{j<=u} (1 - b_gj y_j)

Units are exchangeable, so where the claim is true a unit's ``y`` has an expectation of 0 or more
given the units before. With ``b >= 0`` and ``s`` chosen before a unit is seen, ``W`` is a
nonnegative supermartingale that begins at 1, and reaches ``1 / error`` ever with probability
``error`` at most (Ville): for clustered items, 0/1 or graded, however they are distributed.

The slope is the regression of the units so far, shrunken to .6: plain differences (1) have more
variance, and larger largest values, by which bets are bounded, than a slope below 1. They need 15
to 30 % more items at the quickstart. Bets are Kelly's for differences of ``g`` standard deviations
of ``y``, from the least that the pool can show to 1.5.

Where what scores can be is not known (nats, margins) no exact test exists. There the one-sided
normal mixture with estimated variance of an asymptotic confidence sequence is used on the sums of
``-y``, which carry the correction for the finite pool, from 20 units on.

Rejected: the Wilcoxon test of Optuna's pruner (ties dilute it, repeated looks are not counted); a
fixed level at each look (not a level over all looks); bets by the running mean (more items); the
ratio of posteriors (0/1 scores of one task only); stratified tests over all splits of ``least``
among the tasks (no power: the claim may be true by one task alone).

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B
86 (2024) 1, section 5 (arXiv:2010.09686), and "Confidence sequences for sampling without
replacement", NeurIPS 2020 (arXiv:2006.04347); Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
"Time-uniform central limit theory and asymptotic confidence sequences" (arXiv:2103.06476); the
half-normal mixture: Howard, Ramdas, McAuliffe and Sekhon, Ann. Stat. 49 (2021) 1055.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from merge_core.errors import ParameterError
from search.scoring.intervals import Vector
from search.scoring.units import Units

SLOPE = 0.6  # of the candidate's units by the rival's, before any is seen
SLOPE_UNITS = 30  # that this guess counts for
SPREAD_UNITS = 4  # that the guess of the variance counts for
LARGEST = 1.5  # standard deviations of a unit: the largest difference that is bet on
STEP = 2.5  # at most the ratio of two differences that are bet on
STAKE = 0.95  # most of the wealth that one unit can cost
ASYMPTOTIC = 20  # units, the fewest for the asymptotic test
ROUNDING = 1e-9  # of what forms can be


@dataclass(frozen=True)
class Form:
    """A claim: ``sum_t factors[t] * mean of task t over the whole pool >= least``.

    Args:
        factors: Task -> factor, positive; tasks that are not named do not count.
        least: In the unit of the sum.
    """

    factors: Mapping[str, float]
    least: float

    def value(self, scores: Mapping[str, Vector]) -> float:
        """Return the sum for a model, from its scores of the whole pool."""
        return math.fsum(f * float(np.mean(scores[t])) for t, f in self.factors.items())


def refuted(
    form: Form,
    candidate: Mapping[str, Vector],
    rival: Mapping[str, Vector],
    units: Units,
    spans: Mapping[str, float],
    error: float,
) -> bool:
    """Return whether it is refuted that the candidate's form reaches ``least`` on the whole pool.

    The answer is that of all looks so far: what was refuted at a prefix is at every longer one, so
    over all looks together at most a share ``error`` of the candidates whose form does reach
    ``least`` are ever refuted; exactly so where every task of the form has a finite span, else as
    the units become many. When the whole pool is seen the sums are compared, and no error is left.

    The share is that over random orders of the pool, for a candidate that was not chosen by the
    scores of this order.

    Args:
        form: What is claimed.
        candidate: Task -> ``(k_t,)`` scores of a prefix of the pool, higher is better; items beyond
            the last whole unit are not used.
        rival: Task -> ``(n_t,)`` scores of the whole pool, of any model; the more alike the two,
            the sooner a difference shows.
        units: The pool's.
        spans: Task -> the largest difference of two scores that there can be, of any two items;
            inf where it is not known.
        error: In (0, 1).

    Raises:
        ParameterError: Scores lie further apart than their span.
    """
    seen = {t: len(candidate[t]) for t in form.factors}
    if all(seen[t] == len(rival[t]) for t in seen):
        scale = sum(f * float(np.abs(rival[t]).max()) for t, f in form.factors.items())
        return form.value(candidate) < form.least - ROUNDING * max(scale, abs(form.least))
    pool = _Pool.of(form, rival, units, spans)
    _check(candidate, pool.tops, spans)
    values = pool.sums({t: candidate[t] for t in seen}, units.seen(seen))
    if not math.isfinite(pool.scale):
        return _beyond_normal(pool, values, form.least, error)
    return _impossible(pool, values, form.least) or _outbet(pool, values, form.least, error)


@dataclass(frozen=True, eq=False)
class _Pool:
    """What is known before a candidate is seen, in units that hold an item of the form's tasks.

    Exchangeable units stay so without those that hold none.
    """

    units: Units
    shares: Mapping[str, float]  # task -> f_t U / n_t
    held: npt.NDArray[np.bool_]  # (all units,)
    tops: Mapping[str, float]  # task -> the best score that there can be
    rival: Vector  # (U,) r_j
    most: Vector  # (U,) the largest c_j that there can be
    scale: float  # the largest difference of two models' forms, inf if not known

    @classmethod
    def of(
        cls,
        form: Form,
        rival: Mapping[str, Vector],
        units: Units,
        spans: Mapping[str, float],
    ) -> _Pool:
        tasks = form.factors
        items = {t: np.diff(units.ends[t], prepend=0) for t in tasks}
        held = np.any([items[t] > 0 for t in tasks], axis=0)
        shares = {t: f * int(held.sum()) / len(rival[t]) for t, f in tasks.items()}
        tops = {t: float(rival[t].min()) + spans[t] for t in tasks}
        scale = sum(f * spans[t] for t, f in tasks.items())
        made = cls(units, shares, held, tops, np.empty(0), np.empty(0), scale)
        most = np.zeros(units.count)
        for t in tasks:  # 0 items of an unbounded task are no nan
            most[items[t] > 0] += shares[t] * tops[t] * items[t][items[t] > 0]
        return cls(units, shares, held, tops, made.sums(rival, units.count), most[held], scale)

    @property
    def count(self) -> int:
        return int(self.held.sum())

    def sums(self, scores: Mapping[str, Vector], seen: int) -> Vector:
        """Return a model's values of the first of all units."""
        total = np.zeros(seen)
        for task, share in self.shares.items():
            until = np.r_[0.0, np.cumsum(scores[task])]
            total += share * np.diff(until[[0, *self.units.ends[task][:seen]]])
        values: Vector = total[self.held[:seen]]
        return values


def _check(
    candidate: Mapping[str, Vector], tops: Mapping[str, float], spans: Mapping[str, float]
) -> None:
    for task, top in tops.items():
        most = float(candidate[task].max(initial=-math.inf))
        if most > top + ROUNDING * spans[task]:
            raise ParameterError(
                f"task {task}: scores differ by {most - top + spans[task]:g}, but its metric "
                f"allows {spans[task]:g}; correct the bounds that its evaluator states"
            )


def _rest(total: float, values: Vector, count: int, after: bool = False) -> Vector:
    """Return the means of what is left before each value; with ``after`` also after the last."""
    before = np.r_[0.0, np.cumsum(values)][: len(values) + (after and len(values) < count)]
    means: Vector = (total - before) / (count - np.arange(len(before)))
    return means


def _impossible(pool: _Pool, values: Vector, least: float) -> bool:
    """Return whether not even the best scores on all that is left would reach ``least``."""
    needed = _rest(pool.count * least, values, pool.count, after=True)
    best = _rest(float(pool.most.sum()), pool.most[: len(values)], pool.count, after=True)
    return bool((needed > best + ROUNDING * pool.scale).any())


@dataclass(frozen=True, eq=False)
class _Paired:
    gains: Vector  # (u,) y_j
    slopes: Vector  # (u,) s_j, in tenths
    means: Vector  # (u,) m_j - s_j rho_j, which is taken from c_j - s_j r_j
    spread: Vector  # (u,) sum over the units before of squared deviations of c - s_j r


def _paired(pool: _Pool, values: Vector, least: float) -> _Paired:
    """Return the candidate's values less what the rival's tell, each slope from units before."""
    rival = pool.rival[: len(values)]
    n = np.arange(len(values))
    c, r, cc, cr, rr = (
        np.cumsum(x) - x for x in (values, rival, values**2, values * rival, rival**2)
    )
    least_one = np.maximum(n, 1)
    within_c, within_r, both = (
        cc - c * c / least_one,
        rr - r * r / least_one,
        cr - c * r / least_one,
    )
    guess = SLOPE_UNITS * float(pool.rival.var())
    slopes = np.full(len(values), SLOPE)
    if guess > 0:
        slopes = (both + SLOPE * guess) / (np.maximum(within_r, 0.0) + guess)
    slopes = np.round(np.clip(slopes, 0.0, 1.0), 1)
    total = float(pool.rival.sum())
    means = _rest(pool.count * least, values, pool.count) - slopes * _rest(total, rival, pool.count)
    spread = np.maximum(within_c - 2 * slopes * both + slopes**2 * within_r, 0.0)
    return _Paired(values - slopes * rival - means, slopes, means, spread)


def _outbet(pool: _Pool, values: Vector, least: float, error: float) -> bool:
    """Return whether the wealth ever reached ``1 / error``."""
    if not len(values):
        return False
    paired = _paired(pool, values, least)
    guess = max((1 - SLOPE**2) * float(pool.rival.var()), (pool.scale / 10) ** 2)
    n = np.arange(len(values))
    sd = np.sqrt((SPREAD_UNITS * guess + paired.spread) / (SPREAD_UNITS + n))
    most = {s: float((pool.most - s * pool.rival).max()) for s in {*paired.slopes.tolist()}}
    room = np.array([most[s] for s in paired.slopes.tolist()]) - paired.means
    sizes = _sizes(pool.count, error)[:, None]
    stakes = STAKE / np.maximum(room, 1e-6 * pool.scale)
    bets = np.minimum(sizes / (1 + sizes**2) / sd, stakes)
    wealth = np.cumsum(np.log1p(-bets * paired.gains), axis=1)
    together = np.logaddexp.reduce(wealth, axis=0) - math.log(len(wealth))
    return bool((together >= -math.log(error)).any())


def _sizes(count: int, error: float) -> Vector:
    """Return the differences to bet on, in standard deviations of a unit.

    The smallest is what ``count`` units can just show: they multiply the wealth by ``1 / error``.
    """
    least = min(math.sqrt(-2 * math.log(error) / count), LARGEST)
    number = 2 + math.ceil(math.log(LARGEST / least) / math.log(STEP))
    sizes: Vector = np.geomspace(least, LARGEST, number)
    return sizes


def _beyond_normal(pool: _Pool, values: Vector, least: float, error: float) -> bool:
    """Return whether the sum of ``-y`` was ever beyond the half-normal mixture's boundary.

    The mixture's scale is the best one for a quarter of the pool.
    """
    from scipy.special import log_ndtr

    if len(values) < ASYMPTOTIC:
        return False
    paired = _paired(pool, values, least)
    late = slice(ASYMPTOTIC - 1, None)
    u = np.arange(1, len(values) + 1)[late]
    variance = _variances(paired.gains)[late]
    tiny = (ROUNDING * (np.abs(pool.rival).max() + abs(least))) ** 2 + np.finfo(float).tiny
    away = -np.cumsum(paired.gains)[late] / np.sqrt(np.maximum(variance, tiny))
    spent = -2 * math.log(error)
    rho2 = (spent + math.log(spent + 1)) / (pool.count / 4)
    root = away * np.sqrt(rho2 / (1 + u * rho2))
    wealth = math.log(2) - np.log1p(u * rho2) / 2 + root**2 / 2 + log_ndtr(root)
    return bool((wealth >= -math.log(error)).any())


def _variances(values: Vector) -> Vector:
    """Return the variance of each prefix of at least two values; of one: 0."""
    u = np.arange(1, len(values) + 1)
    centred = values - values[0]  # sums of squares of far-off values lose their digits
    sums, squares = np.cumsum(centred), np.cumsum(centred**2)
    found: Vector = np.maximum(squares - sums**2 / u, 0.0) / np.maximum(u - 1, 1)
    return found

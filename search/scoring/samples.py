"""Scores of one task, and how many independent items they are worth where items come in clusters.

    n, G     items, clusters            V     variance of the mean if all items were independent
    c_g      items of cluster g         C     the same by sums of clusters
    r_g      sum over cluster g of      D     design effect: what clusters multiply V by
             score - mean               rho   correlation of two items of one cluster

    C = sum r_g^2 / (1 - c_g/n) / n^2               rho = (C/V - 1) / (D_1 - 1), at least 0
    D_1 = (n-1) / (n^2 / sum c_g^2 - 1)             D = 1 + rho (D_1 - 1)
    effective items   1 + (n-1) / D                 variance of the mean   V D

C is the clustered standard error of evaluations with the correction that has no bias at rho = 0 for
clusters of any size (CR2; for equal clusters the factor G/(G-1)). D_1 is the design effect at
rho = 1, where G equal clusters are worth G items: so a benchmark with every item twice gets, to the
last digits, the interval of the benchmark without its twins. Clusters never narrow an interval.

Tasks of few clusters learn from the others: with I = n^2 / sum c_g(c_g-1), a task's rho is blended
with all tasks' mean weighed by I, as if that told as much as I = 10 (and is that mean where all
items of the task are alike). Each task by itself was rejected: rho is cut at 0, and 57 tasks of 3
pairs without correlation got intervals 28 % too wide, now 7 %.

The variance of 0/1 items follows from their mean; what clusters leave to estimate is rho. D has the
noise of I / (1 - rho) degrees of freedom (by simulation; Fisher's intraclass correlation of normal
scores has (1 - rho)^2, which fits shares of one half only): infinitely many for single items and
for twins that agree. For 0/1 items and their pairs ``(1 - rho) / (1 + k^2)`` is added to rho where
k clusters, of all tasks, hold an item unlike the rest (wrong, if most are right; different, in
pairs): where all are right, nothing tells of rho, and clusters count as items. Other scores have
``(sum u_g)^2 / sum u_g^2 - 1`` degrees of freedom with ``u_g = c_g (1 + rho (c_g - 1))``, cluster
g's part of V D (Satterthwaite; G - 1 if equal). Where rho is cut at 0, which makes up for its
noise, the degrees of freedom are those of independent items.

Simulated at 95 %, 0/1 items, 30 to 200 clusters of 2 to 10 items, correlation 0, .25, .5, 50 % to
99 % right: 93.6 % to 98.1 % cover; in whole studies see ``benchmarks/calibration.py``. Rejected: no
k (89 % at 99 % right, 100 clusters of 10, correlation .5); ``1 / (1 + k)`` (98.5 % without
correlation); G - 1 degrees of freedom everywhere (half a point more at 30 clusters, above 97 % in
pairs without correlation; twins would not be items).

Sources: Miller, arXiv:2411.00640 (evaluations); Bell and McCaffrey, Survey Methodology 28 (2002)
169 (CR2); Fisher, Statistical Methods (1925), section 38; Dean and Pagano, J. Surv. Stat. Methodol.
3 (2015) 484 (effective items in intervals of shares); Kish, Survey Sampling (1965), section 5.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
IntVector = npt.NDArray[np.int64]
_SHARED = 10.0  # what all tasks' rho tells of one task's, as I


@dataclass(frozen=True, eq=False)
class Sample:
    """One model's scores on items of one task.

    Args:
        values: ``(n,)`` float64, n >= 1, oriented so that tasks can be added.
        clusters: ``(n,)`` numbers, 0 or more, gaps allowed: items of one number are not
            independent. None: all are.
        exact: Whether every score is the same number, known without sampling, such as a size.
            Its mean has no width.
    """

    values: Vector
    clusters: IntVector | None = None
    exact: bool = False

    def times(self, factor: float) -> Sample:
        """Return the sample of scores in another unit."""
        return replace(self, values=factor * self.values)

    def same_clusters(self, other: Sample) -> bool:
        """Return whether the items of both come in the same clusters."""
        mine, theirs = self.clusters, other.clusters
        if mine is None or theirs is None:
            return mine is theirs
        return mine is theirs or np.array_equal(mine, theirs)


Scores = Sample | npt.ArrayLike  # a plain vector is a sample of independent items


def sample_of(scores: Scores) -> Sample:
    """Return scores as a sample."""
    return scores if isinstance(scores, Sample) else Sample(np.asarray(scores, dtype=np.float64))


def linearised(scores: npt.ArrayLike, sizes: npt.ArrayLike) -> Vector:
    """Turn scores of items that count by their size into scores that count the same.

    With ``r = sum d_i x_i / sum d_i``, the values ``r + d_i (x_i - r) / mean(d)`` have ``r`` as
    their mean, and as the variance of that mean the ratio estimator's; those of two models differ,
    item by item, by what the difference of their ratios is made of. So every interval can be of
    them. Source: Cochran, Sampling Techniques (1977), section 6.3.

    Args:
        scores: ``(n,)`` float ``x_i``, n >= 1, any unit.
        sizes: ``(n,)`` positive ``d_i``; only their ratios matter.
    """
    x, d = np.asarray(scores, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    ratio = float(d @ x / d.sum())
    values: Vector = ratio + d * (x - ratio) / d.mean()
    return values


@dataclass(frozen=True)
class Design:
    """What clusters make of the items of a task."""

    items: float  # effective items, 1 <= items <= n
    freedom: float  # of the correlation of 0/1 items; inf where that loses nothing
    variance: float  # of the mean, V D; inf for one cluster
    clusters: float  # that tell of V D, effective ones: their number if equal, n if D = 1


@dataclass(frozen=True)
class _Clusters:
    n: int
    sizes: Vector  # c_g
    count: float  # n^2 / sum c_g^2
    single: float  # V
    correlation: float  # rho before it is blended or cut; nan where V = 0
    information: float  # I
    telling: int  # k

    def design(self, shared: float, telling: int) -> Design:
        """Return the design, given all tasks' rho and k."""
        if self.count == 1:
            return Design(1.0, math.inf, math.inf, 1.0)
        own = self.information / (self.information + _SHARED)
        rho = shared if math.isnan(self.correlation) else self.correlation
        rho = max(own * rho + (1 - own) * shared, 0.0)
        single = rho == 0
        excess = (self.n - 1) / (self.count - 1) - 1  # D_1 - 1
        variance = self.single * (1 + rho * excess)
        rho += max(1 - rho, 0.0) / (1 + telling**2)
        freedom = math.inf if single or rho > 1 - 1e-12 else self.information / (1 - rho)
        items = 1 + (self.n - 1) / (1 + rho * excess)
        shares = self.sizes * (1 + rho * (self.sizes - 1))  # of the clusters in V D
        clusters = float(shares.sum() ** 2 / (shares @ shares))
        return Design(items, freedom, variance, self.n if single else clusters)


def designs_of(samples: Sequence[Sample]) -> list[Design | None]:
    """Return the design of each task; None where every item is a cluster of its own."""
    found = [_clusters(x) for x in samples]
    several = [x for x in found if x is not None and x.count > 1]
    known = [x for x in several if not math.isnan(x.correlation)]
    total = sum(x.information for x in known)
    shared = sum(x.information * x.correlation for x in known) / total if known else 1.0
    telling = sum(x.telling for x in several)
    return [None if x is None else x.design(shared, telling) for x in found]


def _clusters(sample: Sample) -> _Clusters | None:
    sizes = np.ones(1) if sample.clusters is None else np.bincount(sample.clusters)
    if sample.clusters is None or sizes.max() == 1:
        return None
    n, deviations = len(sample.values), sample.values - sample.values.mean()
    sums = np.bincount(sample.clusters, deviations)[sizes > 0]
    sizes = sizes[sizes > 0].astype(np.float64)
    if len(sizes) == 1:
        return _Clusters(n, sizes, 1.0, math.inf, math.nan, 0.0, 0)
    count = float(n**2 / (sizes @ sizes))
    single = float(deviations @ deviations) / n / (n - 1)
    together = float((sums**2 / (1 - sizes / n)).sum()) / n**2  # C
    excess = together / single - 1 if single > 0 else math.nan
    odd = sample.values != 0
    if odd.mean() > 0.5:  # most are right
        odd = sample.values != sample.values.max()
    return _Clusters(
        n,
        sizes,
        count,
        single,
        excess / ((n - 1) / (count - 1) - 1),
        n**2 / float(sizes @ (sizes - 1)),
        int(np.count_nonzero(np.bincount(sample.clusters, odd))),
    )

"""Which of several finalists is truly the best, by two pools of items, and how good it is.

    x_i, y_i   values of finalist i on the search and the select pool        x, y   their means
    e, f       squared error of x_i - x and of y_i - y, paired item by item, mean over finalists

    h      0.5, what a search item counts of a select item
    z_i    (h (x_i - x) / e + (y_i - y) / f) / (h / e + 1 / f)     decides: the largest z_i wins
    t^2    max(0, Var(y_i) - f)                                    how much finalists truly differ
    m_i    y + t^2 / (t^2 + 1 / (h / e + 1 / f)) z_i               the finalist's shrunken value

The level of all m_i is that of the select items alone, which chose no finalist; the search items
count in the differences between finalists only, since all finalists have the search's luck. Were
candidates drawn independently, ``h = 1`` would be best: selection is ignorable to who knows all of
the evidence (Dawid, IMS Lecture Notes 24 (1994) 211; Efron, JASA 106 (2011) 1602). But a search
learns its own items, so that candidates near each other share their luck. Simulated with pools of
50 to 500 items, 20 to 500 candidates, drawn at random or by CMA-ES: by half the weight the winner
is truly between .02 points worse and .4 better than the one by the select items alone; full weight
is better still where candidates were drawn at random, and worse where CMA-ES drew them
(``benchmarks/select_winner.py``).

Shrinkage: the method of moments of Efron and Morris, JASA 70 (1975) 311 (``dev/LOG.md``); it takes
away what makes the best of several values too high. The order does not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from search.scoring.aggregate import Aggregate, Vectors
from search.scoring.intervals import Z95
from search.scoring.samples import Vector, sample_of

OF_SEARCH = 0.5  # what a search item counts of a select item


@dataclass(frozen=True)
class Evidence:
    """What one pool says of several candidates.

    Args:
        values: Of the candidates, higher is better.
        square: Mean over candidates of the squared error of a value minus their mean; 0: values
            are exact, inf: they tell nothing.
    """

    values: Sequence[float]
    square: float

    @property
    def centred(self) -> Vector:
        """``(candidates,)`` values minus their mean."""
        values = np.asarray(self.values, dtype=np.float64)
        centred: Vector = values - values.mean()
        return centred


@dataclass(frozen=True)
class Weighed:
    """What two pools come to, for each candidate.

    Args:
        order: ``z_i``: the largest is the best.
        shrunken: ``m_i``, in the unit of the select pool.
    """

    order: Sequence[float]
    shrunken: Sequence[float]


def evidence(aggregate: Aggregate, candidates: Sequence[Vectors]) -> Evidence:
    """Return what a pool says of candidates.

    Args:
        aggregate: Makes one number of the tasks.
        candidates: For each, task -> scores of the same items, higher is better; at least one.
    """
    values = [aggregate.value(vectors)[0] for vectors in candidates]
    if len(candidates) == 1:
        return Evidence(values, 0.0)
    centre = _mean(candidates)
    found = [aggregate.difference(vectors, centre) for vectors in candidates]
    squares = [((x.high - x.low) / 2 / Z95) ** 2 for x in found]
    return Evidence(values, sum(squares) / len(squares))


def weighed(select: Evidence, search: Evidence | None = None) -> Weighed:
    """Weigh candidates by their evidence on the select pool, and on the search pool if given.

    Args:
        select: Of items that chose none of them.
        search: Of items that did; None: their values are of another unit.
    """
    level = float(np.mean(select.values))
    if select.square == 0 or len(select.values) == 1:  # exact
        return Weighed([*select.centred.tolist()], [*select.values])
    used = [(1.0, select), *([(OF_SEARCH, search)] if search else [])]
    told = [(w / max(x.square, 1e-300), x.centred) for w, x in used if math.isfinite(x.square)]
    if not told:
        return Weighed([*select.centred.tolist()], [level] * len(select.values))
    total = sum(w for w, _ in told)
    order: Vector = np.sum([w / total * x for w, x in told], axis=0)
    spread = max(0.0, float(np.var(select.values, ddof=1)) - select.square)
    share = spread / (spread + 1 / total) if spread else 0.0
    return Weighed(order.tolist(), (level + share * order).tolist())


def _mean(candidates: Sequence[Vectors]) -> Vectors:
    """Return the mean over candidates of every item's score."""
    samples = {t: [sample_of(x[t]) for x in candidates] for t in candidates[0]}
    return {
        t: replace(several[0], values=np.mean([x.values for x in several], axis=0))
        for t, several in samples.items()
    }

"""Many tasks -> the one number of a trial, as leaderboards do it, with intervals that stay honest.

    e     an entry of the study's score: one task, or a group of tasks       E    their number
    w_e   its weight, sum 1                                                  m_t  a task's mean
    r_t   share of a task in its entry, sum 1                                c_t  score of guessing
    V_e   sum r_t (m_t - c_t) / (1 - c_t)                                    L, U limits

    mean             sum w_e V_e      the interval of ``intervals.combined``
    min              min V_e          [min L_e, min U'_e]
    geometric_mean   prod V_e^w_e     0 where an entry is not above guessing
    apart            every V_e is an objective; the number beside them is the mean

``min``: U' are limits at a level of 1 - (1 - level) / E. The true minimum is one fixed entry, so
only its lower limit can be too high, while any of E upper limits may be too low: this covers at
least ``level`` if the entries' own intervals do, whatever they have to do with each other
(Bonferroni). The plain minimum of means is a little low where entries are close; the interval
covers that.

``min``, two models A and B with D_e = A_e - B_e: with f the entry where B is least,
``min A - min B = min A - B_f`` is at most ``D_f`` and at most ``min U_A - L_B,f``, so

    upper   max over f of min(U_D,f , min U_A - L_B,f)        lower: the same with A and B swapped

with 80 % of the misses allowed for D, 20 % for the E + 1 limits of A and B, again by Bonferroni.
Where one entry is the least of both models by far this is that entry's paired interval, 5 % wider.

``geometric_mean``: in logarithms it is linear, d log G = sum w_e dV_e / V_e. The interval is the
wider, limit by limit, of two: that of the linear form, and MOVER's (squares of the distances from
log V_e to log L_e and log U_e are added). Two models: ``G_A - G_B = sum k_e D_e``, with
``k_e = w_e l(G_A, G_B) / l(A_e, B_e)`` and l the logarithmic mean; the wider of the interval of
that form (which keeps a width where the models agree on every item) and of the linear form item by
item. Where an entry is not above guessing neither exists: the limits are then Bonferroni's, entry
by entry.

Simulated at 95 % with 0/1 items, 2 to 8 tasks of 50 to 400 items, 2 % to 99 % right: 95 % to 99 %
cover, for minima of near equal tasks and their differences up to 100 %; three tasks of 30 items,
90 % right, have 92 % for their minimum. A bootstrap was rejected: no width where all items are
right, and too narrow for a minimum of near equal tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from search.scoring.intervals import (
    Z95,
    Estimate,
    Scores,
    combined,
    items_to_show,
    paired_difference,
    sample_of,
    standard_error,
)
from search.spec.score import Kind

LEVEL = 0.95
_OF_MISSES = 0.8  # for the differences; the rest for the models themselves
Vectors = Mapping[str, Scores]  # task -> scores of its items, higher is better


@dataclass(frozen=True)
class Linear:
    """``(sum factor_t m_t) / divisor + shift`` of the tasks' means."""

    factors: Mapping[str, float]
    shift: float = 0.0
    divisor: float = 1.0

    @property
    def _scale(self) -> float:
        return sum(self.factors.values()) / self.divisor

    def at(self, means: Mapping[str, float]) -> float:
        """Return its value where the tasks have these means, higher is better."""
        return sum(f * means[t] for t, f in self.factors.items()) / self.divisor + self.shift

    def estimate(self, vectors: Vectors, level: float = LEVEL) -> Estimate:
        """Return its value for one model, as ``Aggregate.estimate``."""
        found = combined([vectors[t] for t in self.factors], [*self.factors.values()], level)
        return self._scaled(found, self.shift)

    def difference(self, ours: Vectors, theirs: Vectors, level: float = LEVEL) -> Estimate:
        """Return our value minus theirs, as ``Aggregate.difference``."""
        a, b = ([x[t] for t in self.factors] for x in (ours, theirs))
        return self._scaled(paired_difference(a, b, [*self.factors.values()], level), 0.0)

    def items_to_show(
        self, difference: float, ours: Vectors, theirs: Vectors, level: float = LEVEL
    ) -> int | None:
        """Return how many items show a difference of its value; see ``intervals.items_to_show``."""
        a, b = ([x[t] for t in self.factors] for x in (ours, theirs))
        weights = [*self.factors.values()]
        return items_to_show(difference / self._scale, a, b, weights, level)

    def error(self, vectors: Vectors) -> float:
        """Return the standard error of its value."""
        weights = [*self.factors.values()]
        return standard_error([vectors[t] for t in self.factors], weights) * self._scale

    def _scaled(self, found: Estimate, shift: float) -> Estimate:
        return Estimate(*(shift + self._scale * x for x in (found.mean, found.low, found.high)))


@dataclass(frozen=True)
class Entry:
    """One entry of the study's score."""

    name: str  # of the task or group
    shares: Mapping[str, float]  # task -> ``r_t``, positive, sum 1
    chances: Mapping[str, float]  # task -> ``c_t`` below 1; absent: 0
    weight: float = 1.0  # positive, any scale
    group: bool = False  # whether it is a group, of one task or more
    steer: str | None = None  # the metric that scores the search pool, if not its own

    def linear(self) -> Linear:
        """Return ``V_e`` as a function of the tasks' means."""
        factors = {t: r / (1 - self.chances.get(t, 0.0)) for t, r in self.shares.items()}
        return Linear(factors, -sum(factors[t] * c for t, c in self.chances.items()))

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        chances = {task: self.chances.get(task, 0.0) for task in self.shares}
        tasks = {t: {"share": r, "chance": chances[t]} for t, r in self.shares.items()}
        steer = {"steer": self.steer} if self.steer else {}
        return {"name": self.name, "weight": self.weight, **steer, "tasks": tasks}


class Aggregate:
    """The number of a trial, from one entry or more; no task is in two."""

    def __init__(self, kind: Kind, entries: Sequence[Entry]) -> None:
        self.kind, self.entries = kind, tuple(entries)
        self.objectives = len(self.entries) if kind == "apart" else 1  # told to a sampler
        self._parts = [entry.linear() for entry in entries]
        total = sum(entry.weight for entry in entries)
        self._weights = [entry.weight / total for entry in entries]
        pairs = [(e.weight, part) for e, part in zip(entries, self._parts, strict=True)]
        self.mean = Linear(  # of the entries, by their weights
            {t: w * f for w, part in pairs for t, f in part.factors.items()},
            sum(w * part.shift for w, part in pairs) / total,
            total,
        )

    def plain(self) -> dict[str, Any]:
        """Return kind and entries as JSON values: what the number of a trial is made of."""
        return {"aggregate": self.kind, "entries": [entry.plain() for entry in self.entries]}

    @property
    def weights(self) -> dict[str, float]:
        """Task -> what its mean counts in the (mean) number of a trial, guessing left out."""
        return {t: f / self.mean.divisor for t, f in self.mean.factors.items()}

    @property
    def steered(self) -> dict[str, str]:
        """Entry -> the metric that scores the search pool, where that is not its own."""
        return {entry.name: entry.steer for entry in self.entries if entry.steer}

    def on_search(self) -> Aggregate:
        """Return the aggregate of the search pool: no score of guessing for what steers."""
        entries = [replace(e, chances={}) if e.steer else e for e in self.entries]
        return Aggregate(self.kind, entries)

    def at(self, means: Mapping[str, float]) -> float:
        """Return the number where the tasks have these means, higher is better."""
        if self.kind in ("mean", "apart"):
            return self.mean.at(means)
        each = [part.at(means) for part in self._parts]
        return min(each) if self.kind == "min" else self._product(each)

    def values_at(self, means: Mapping[str, float]) -> tuple[float, ...]:
        """Return ``values`` where the tasks have these means."""
        parts = self._parts if self.objectives > 1 else []
        return tuple(part.at(means) for part in parts)

    def values(self, vectors: Vectors) -> tuple[float, ...]:
        """Return the objectives, higher is better; nothing where there is one, ``value``."""
        parts = self._parts if self.objectives > 1 else []
        return tuple(part.estimate(vectors).mean for part in parts)

    def value(self, vectors: Vectors) -> tuple[float, float]:
        """Return the number and its standard error, in the entries' unit.

        The standard error of a ``min`` or ``geometric_mean`` is half its 95 % interval over 1.96.

        Args:
            vectors: Task -> its sample, higher is better; see ``Tasks.oriented``.

        Raises:
            NonFiniteError: A score is nan or infinite.
        """
        found = self.estimate(vectors)
        if self.kind in ("mean", "apart"):
            return found.mean, self.mean.error(vectors)
        return found.mean, (found.high - found.low) / 2 / Z95

    def estimate(self, vectors: Vectors, level: float = LEVEL) -> Estimate:
        """Return the number with its interval. Arguments and errors: see ``value``."""
        if self.kind in ("mean", "apart"):
            return self.mean.estimate(vectors, level)
        own = [part.estimate(vectors, level) for part in self._parts]
        highs = [x.high for x in self._each(vectors, (1 - level) / len(self._parts))]
        if self.kind == "min":
            return Estimate(min(x.mean for x in own), min(x.low for x in own), min(highs))
        if min(x.mean for x in own) <= 0:
            return Estimate(0.0, 0.0, self._product(highs))
        return self._geometric(vectors, own, level)

    def difference(self, ours: Vectors, theirs: Vectors, level: float = LEVEL) -> Estimate:
        """Return our number minus theirs, paired item by item, with its interval.

        Args:
            ours: One model's scores, as in ``value``.
            theirs: The other's, of the same items in the same order.
            level: Share of samples whose interval covers the truth, in (0, 1).

        Raises:
            ParameterError: The two differ in their items.
            NonFiniteError: A score is nan or infinite.
        """
        if self.kind in ("mean", "apart"):
            return self.mean.difference(ours, theirs, level)
        if self.kind == "min":
            return self._difference_of_minima(ours, theirs, level)
        return self._difference_of_products(ours, theirs, level)

    def items_to_show(self, ours: Vectors, theirs: Vectors, level: float = LEVEL) -> int | None:
        """Return on how many items the interval of the difference seen would leave 0 out.

        They are counted over the number's tasks, in the proportion and the clusters they have.
        For a ``min`` or ``geometric_mean`` the width is taken to fall with the root of the number.

        Args:
            ours: As in ``difference``.
            theirs: As in ``difference``.
            level: As in ``difference``.

        Returns:
            None where there is no such number: the difference is 0, or has no finite interval.
        """
        found = self.difference(ours, theirs, level)
        if self.kind in ("mean", "apart"):
            return self.mean.items_to_show(found.mean, ours, theirs, level)
        width = found.mean - found.low if found.mean > 0 else found.high - found.mean
        if found.mean == 0 or not math.isfinite(width):
            return None
        items = sum(len(sample_of(ours[t]).values) for t in self.mean.factors)
        return math.ceil(items * (width / found.mean) ** 2)

    def _each(self, vectors: Vectors, misses: float) -> list[Estimate]:
        return [part.estimate(vectors, 1 - misses) for part in self._parts]

    def _difference_of_minima(self, ours: Vectors, theirs: Vectors, level: float) -> Estimate:
        misses = 1 - level
        paired = [part.difference(ours, theirs, 1 - _OF_MISSES * misses) for part in self._parts]
        rest = (1 - _OF_MISSES) * misses / (len(self._parts) + 1)
        a, b = self._each(ours, rest), self._each(theirs, rest)
        least_a, least_b = (min(x.high for x in side) for side in (a, b))
        return Estimate(
            min(x.mean for x in a) - min(x.mean for x in b),
            min(max(d.low, x.low - least_b) for d, x in zip(paired, a, strict=True)),
            max(min(d.high, least_a - x.low) for d, x in zip(paired, b, strict=True)),
        )

    def _product(self, values: Sequence[float]) -> float:
        pairs = zip(values, self._weights, strict=True)
        return math.prod(math.pow(max(x, 0.0), w) for x, w in pairs)

    def tangent(self, values: Sequence[float]) -> Linear:
        """Return ``log G`` as a linear form around some values of the entries."""
        parts = zip(self._parts, self._weights, values, strict=True)
        return Linear({t: w * f / v for p, w, v in parts for t, f in p.factors.items()})

    def _geometric(self, vectors: Vectors, own: Sequence[Estimate], level: float) -> Estimate:
        values = [x.mean for x in own]
        g = self._product(values)
        form = self.tangent(values).estimate(vectors, level)
        down = max(form.mean - form.low, self._distance(values, [x.low for x in own]))
        up = max(form.high - form.mean, self._distance(values, [x.high for x in own]))
        return Estimate(g, g * math.exp(-down), g * math.exp(up))

    def _distance(self, values: Sequence[float], limits: Sequence[float]) -> float:
        parts = zip(self._weights, values, limits, strict=True)
        return math.hypot(*(w * math.log(x / v) if x > 0 else math.inf for w, v, x in parts))

    def _difference_of_products(self, ours: Vectors, theirs: Vectors, level: float) -> Estimate:
        a, b = ([p.estimate(x, level).mean for p in self._parts] for x in (ours, theirs))
        g, h = self._product(a), self._product(b)
        if min(*a, *b) <= 0:
            one, other = (self.estimate(x, (1 + level) / 2) for x in (ours, theirs))
            return Estimate(g - h, one.low - other.high, one.high - other.low)
        pairs = zip(self._parts, self._weights, a, b, strict=True)
        factors = {
            t: w * factor * _between(g, h) / _between(x, y)
            for part, w, x, y in pairs
            for t, factor in part.factors.items()
        }
        kept = Linear(factors).difference(ours, theirs, level)
        f, k = self.tangent(a).factors, self.tangent(b).factors
        left = [sample_of(ours[t]).times(g * f[t]) for t in f]
        right = [sample_of(theirs[t]).times(h * k[t]) for t in k]
        form = paired_difference(left, right, [1.0] * len(f), level)
        low, high = (len(f) * (x - form.mean) for x in (form.low, form.high))
        return Estimate(
            g - h, g - h + min(low, kept.low - kept.mean), g - h + max(high, kept.high - kept.mean)
        )


def _between(a: float, b: float) -> float:
    """Return the logarithmic mean of two positive numbers, ``(a - b) / log(a / b)``."""
    return a if math.isclose(a, b, rel_tol=1e-9) else (a - b) / math.log(a / b)

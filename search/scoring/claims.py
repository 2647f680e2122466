"""That a candidate is better than a rival by a margin, as linear forms of its tasks' means.

    m_t   a task's mean over the whole search pool      V_e   an entry of the score (``aggregate``)
    R_e   V_e of the rival, which is known              d     the margin

    mean             sum w_e V_e >= sum w_e R_e + d                                    one form
    min              V_e >= min R + d for every entry e                                all of them
    geometric_mean   sum w_e V_e / R_e >= 1 + log(1 + d / prod R_e^w_e)                one form
    apart            V_e >= R_e + d for an entry e: else it is dominated               one of them
                     V_e > R_e where its score is exact

The third is what the claim implies, and no more: log V <= log R + (V - R) / R, since the logarithm
is concave. So whoever refutes the form refutes the claim, and a little later than might be.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from search.scoring.aggregate import Aggregate, Linear
from search.scoring.sequential import Form


@dataclass(frozen=True)
class Claim:
    """Forms of which the claim says that all hold, or that one does."""

    forms: tuple[Form, ...]
    one: bool = False


def better(
    aggregate: Aggregate, rival: Mapping[str, float], margin: float, exact: Collection[str] = ()
) -> Claim:
    """Return what a candidate must reach that is better than a rival.

    Args:
        aggregate: How tasks become a number.
        rival: Task -> the rival's mean over the whole pool, higher is better.
        margin: By how much, in the aggregate's unit; for ``apart`` in each entry's.
        exact: Tasks whose scores are known without sampling.
    """
    parts = [entry.linear() for entry in aggregate.entries]
    of_entry = [part.at(rival) for part in parts]
    if aggregate.kind == "apart":
        counted = [entry.shares.keys() <= {*exact} for entry in aggregate.entries]
        reached = [
            _reaching(part, math.nextafter(r, math.inf) if known else r + margin)
            for part, r, known in zip(parts, of_entry, counted, strict=True)
        ]
        return Claim(tuple(reached), one=True)
    if aggregate.kind == "min":
        return Claim(tuple(_reaching(part, min(of_entry) + margin) for part in parts))
    if aggregate.kind == "mean":
        return Claim((_reaching(aggregate.mean, aggregate.mean.at(rival) + margin),))
    product = aggregate.at(rival)
    if product <= 0:  # whatever is above guessing everywhere is better
        return Claim(())
    form = aggregate.tangent(of_entry)
    return Claim((_reaching(form, form.at(rival) + math.log1p(margin / product)),))


def _reaching(form: Linear, least: float) -> Form:
    factors = {task: factor / form.divisor for task, factor in form.factors.items()}
    return Form(factors, least - form.shift)

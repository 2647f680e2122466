"""The trials that no other one dominates: what a search with several objectives ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Values = Sequence[float]


def front(values: Mapping[int, Values]) -> list[int]:
    """Return the trials that are not dominated, in the order of the mapping.

    One trial dominates another if it is nowhere worse and somewhere better; of equal trials all
    stay.

    Args:
        values: Trial number -> its objectives, higher is better, the same number for each.
    """
    return [
        number
        for number, own in values.items()
        if not any(_dominates(other, own) for other in values.values())
    ]


def thinned(values: Mapping[int, Values], overall: Mapping[int, float], count: int) -> list[int]:
    """Return at most ``count`` trials of a front.

    The best overall comes first, then the best of every objective, then the others, best overall
    first; ties go to the earlier trial.

    Args:
        values: Trial number -> its objectives, of the trials on the front.
        overall: Trial number -> the number that says what is best overall, higher is better.
        count: At least 1.
    """
    objectives = range(len(next(iter(values.values()), ())))
    best = [max((own[e], overall[n], -n) for n, own in values.items()) for e in objectives]
    ranked = sorted(values, key=lambda n: (-overall[n], n))
    order = [*ranked[:1], *(-number for _, _, number in best), *ranked]
    return list(dict.fromkeys(order))[:count]


def _dominates(one: Values, other: Values) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

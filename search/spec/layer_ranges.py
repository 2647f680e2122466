"""Layers of slices as knobs: whether they fit each other at every value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import product
from typing import Any

from merge_core.errors import Problems, join
from merge_core.validation import Place
from search.spec.entries import found_at, slice_of
from search.spec.ranges import Knob

RANGE = "layer_range"


def check_ranges(data: Any, found: Sequence[Knob], path: str, problems: Problems) -> None:
    """Add a problem for slices whose layers do not fit each other at every value of their knobs.

    What is wrong at both ends of all ranges is found by the rules for plain recipes.
    """
    inside: dict[Place, list[Knob]] = {}
    for knob in found:
        inside.setdefault(slice_of(knob.place) or (), []).append(knob)
    for place, knobs_there in inside.items():
        one = found_at(data, place)
        rule = _unfit(one.get("sources"), place, knobs_there)
        if rule is not None:
            problems.append((reduce(join, (*place, "sources"), path), rule))


def _unfit(sources: Any, place: Place, found: Sequence[Knob]) -> str | None:
    """Return what is wrong with the layers of a slice at some ends of its ranges, or None."""
    names = {knob.place: knob.tied or str(knob.place) for knob in found}
    ends = {names[k.place]: k.choices or (int(k.low), int(k.high)) for k in found}
    for numbers in product(*ends.values()):
        chosen = dict(zip(ends, numbers, strict=True))
        spans = _spans(sources, place, {at: chosen[name] for at, name in names.items()})
        if any(not isinstance(x, int) for span in spans for x in span):
            return None  # said by the rules for plain recipes
        if any(first > last for first, last in spans):
            return f"a range may begin behind its end: {spans}; keep the ends' ranges apart"
        if len({last - first for first, last in spans}) > 1:
            return f"sources may have other numbers of layers, {spans}; give the knobs one `tied:`"
    return None


def _spans(sources: Any, place: Place, values: Mapping[Place, Any]) -> list[tuple[Any, Any]]:
    """Return first and last of each source that has two, with the values of knobs."""
    found = []
    for i, source in enumerate(sources if isinstance(sources, list) else ()):
        given = source.get(RANGE) if isinstance(source, dict) else None
        if isinstance(given, list) and len(given) == 2:
            first, last = (values.get((*place, "sources", i, RANGE, n), given[n]) for n in (0, 1))
            found.append((first, last))
    return found

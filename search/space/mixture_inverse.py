"""A mixture that somebody has -> the values of the knobs under ``moe:`` that make it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from merge_core.errors import Problems
from merge_core.recipe.mixture_schema import Mixture
from merge_core.recipe.schema import Recipe
from merge_core.validation import Place
from search.space import units
from search.space.units import Drawn
from search.spec.mixture_knobs import DENSE, EXPERTS, MOE, TAKE_PART, expert_of

if TYPE_CHECKING:
    from search.space.space import Space


def mixture_point(space: Space, recipe: Recipe, problems: Problems) -> dict[str, Drawn]:
    """Return the values of the knobs under ``moe:``; add a problem where experts are others.

    Args:
        space: Of the study.
        recipe: A valid one.
        problems: By key path of the study's recipe.
    """
    moe, given = space.template.data.get(MOE), recipe.moe
    if (moe is None) != (given is None):
        has = ("none", "experts") if given is None else ("experts", "none")
        problems.append((f"recipe.{MOE}", f"the study has {has[1]}, this recipe {has[0]}"))
    if moe is None or given is None:
        return {}
    places = [place for place in space.places if place[0] == MOE]
    numbers = _matched(space, given, problems)
    found: dict[str, Drawn] = {}
    for place in places:
        value = _value(given, place, numbers)
        for i, dimension in enumerate(space.at(place)):
            if place == DENSE:
                first, last = units.bands(dimension.knob, space.layers)[i]
                value = {*range(first, last + 1)} <= {*given.dense_layers}
            if value is not None:
                number = dimension.number
                found[dimension.name] = value if number is None else number.nearest(value)
    return found


def same_mixture(made: Recipe, given: Recipe) -> bool:
    """Return whether two recipes are one mixture, whatever file the routers were trained to."""
    return _asked(made.moe) == _asked(given.moe)


def _asked(moe: Mixture | None) -> Mixture | None:
    return moe and replace(moe, gates=None)


def _matched(space: Space, given: Mixture, problems: Problems) -> Mapping[int, int]:
    """Return the position in the study of every expert that takes part -> that in the recipe."""
    template = space.template
    ours = [template.expert(entry) for entry in template.data[MOE][EXPERTS]]
    theirs = [expert.source_model for expert in given.experts]
    found: dict[int, int] = {}
    for i, name in enumerate(ours):
        if len(found) < len(theirs) and theirs[len(found)] == name:
            found[i] = len(found)
    may_lack = {place[2] for place in space.places if expert_of(place) and place[-1] == TAKE_PART}
    if len(found) < len(theirs) or {*range(len(ours))} - found.keys() - may_lack:
        rule = f"the study has {', '.join(ours)}, this recipe {', '.join(theirs)}"
        problems.append((f"recipe.{MOE}.{EXPERTS}", rule))
    return found


def _value(given: Mixture, place: Place, numbers: Mapping[int, int]) -> Any:
    """Return what a mixture has at the place of a knob; None where it has no such expert."""
    if expert_of(place) is None:
        return None if place == DENSE else getattr(given, str(place[-1]))
    position = int(place[2])
    if place[-1] == TAKE_PART:
        return position in numbers
    if place[1] != EXPERTS:
        return getattr(given.shared_experts[position], str(place[-1]))
    there = numbers.get(position)
    return None if there is None else getattr(given.experts[there], str(place[-1]))

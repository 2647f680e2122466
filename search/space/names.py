"""What a knob is called, and which filters stand at and before it, from its place in a recipe."""

from __future__ import annotations

from typing import Any

from merge_core.validation import Place
from search.spec.entries import entry_of, found_at, module_of, slice_of
from search.spec.layer_ranges import RANGE
from search.spec.mixture_knobs import expert_of
from search.spec.recipe_template import Template


def name_of(template: Template, place: Place) -> str:
    """Return ``weight/model/filter`` for a place; the study's own words, no key paths.

    In a slice ``slice 2/`` stands ahead of it, counted from 1, in a module that module's name.
    """
    own = _own_name(template, place)
    part = slice_of(place)
    ahead = [module_of(place), f"slice {int(part[-1]) + 1}" if part else None]
    return "/".join([*(x for x in ahead if x), own])


def _own_name(template: Template, place: Place) -> str:
    at = entry_of(place)
    source: Any = None if at is None else found_at(template.data, at)
    shown = [] if at is None else [short(source["model"])]
    if (expert := expert_of(place)) is not None:
        shown = [short(found_at(template.data, expert)["source_model"])]
    if RANGE in place:
        return "/".join([("first layer", "layer after the last")[int(place[-1])], *shown])
    if "parameters" not in place:
        return "/".join([str(place[-1]), *shown])
    start = place.index("parameters")
    parts = [str(place[start + 1]), *shown]
    setting: Any = template.data
    for i, key in enumerate(place):
        setting = setting[key]
        if i > start and isinstance(setting, dict) and setting.get("filter"):
            parts.append(str(setting["filter"]))
    if isinstance(place[-1], int):
        parts.append(f"value {place[-1]}")
    return "/".join(parts)


def short(reference: Any) -> str:
    """Return the last name in a model's reference."""
    return str(reference).rstrip("/").rsplit("/", 1)[-1]


def filters_at(template: Template, place: Place) -> tuple[str | None, list[str | None]]:
    """Return the filter of the entry that a knob is the value of, and those before it."""
    if "parameters" not in place:
        return None, []
    at = place.index("parameters") + 2
    setting: Any = template.data
    for key in place[:at]:
        setting = setting[key]
    cases = setting if isinstance(setting, list) else [setting]
    if not all(isinstance(case, dict) and "value" in case for case in cases):
        return None, []  # the knob is the whole setting, or one value of a gradient
    filters = [case.get("filter") for case in cases]
    i = int(place[at]) if isinstance(setting, list) else 0
    return filters[i], filters[:i]


def depth_of(template: Template, place: Place) -> float | None:
    """Return where in [0, 1] a knob stands that is one value of a gradient; None elsewhere."""
    if not isinstance(place[-1], int):
        return None
    gradient: Any = template.data
    for key in place[:-1]:
        gradient = gradient[key]
    return place[-1] / (len(gradient) - 1) if len(gradient) > 1 else 1.0

"""What a knob is called, and which filters stand at and before it, from its place in a recipe."""

from __future__ import annotations

from typing import Any

from merge_core.validation import Place
from search.spec.recipe_template import Template


def name_of(template: Template, place: Place) -> str:
    """Return ``weight/model/filter`` for a place; the study's own words, no key paths."""
    if "parameters" not in place:
        return str(place[0]) if len(place) == 1 else f"{place[-1]}/{_model(template, place)}"
    at = place.index("parameters")
    parts = [str(place[at + 1])]
    if at > 0:
        parts.append(_model(template, place))
    setting: Any = template.data
    for i, key in enumerate(place):
        setting = setting[key]
        if i > at and isinstance(setting, dict) and setting.get("filter"):
            parts.append(str(setting["filter"]))
    if isinstance(place[-1], int):
        parts.append(f"value {place[-1]}")
    return "/".join(parts)


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


def _model(template: Template, place: Place) -> str:
    model: Any = template.data
    for key in (*place[:2], "model"):
        model = model[key]
    return str(model).rstrip("/").rsplit("/", 1)[-1]

"""Knobs under ``moe:``: where they may stand, which of them change anything, and what they fill in.

gate_mode, experts_per_token, temperature       one value for the mixture
dense_layers: {per: layer}                      for each layer: experts, or one merged MLP
experts[i].take_part                            whether it is an expert at all
experts[i].gate_scale, residual_scale, noise_scale       one value for the expert
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from merge_core.errors import Problems, hint, join, shown
from merge_core.recipe.mixture_schema import ALIASES, GATE_MODES, PROMPTED
from merge_core.recipe.read_fields import Node
from merge_core.validation import Place
from search.spec import ranges
from search.spec.ranges import Knob

MOE, EXPERTS, TAKE_PART, TRAINED = "moe", "experts", "take_part", "trained"
GATE_MODE, PER_TOKEN, DENSE = (MOE, "gate_mode"), (MOE, "experts_per_token"), (MOE, "dense_layers")
TEMPERATURE = (MOE, "temperature")
BOTH = (EXPERTS, "shared_experts")
FITTED = ("temperature", "gate_scale")  # what training of the routers settles, too
OF_EXPERT = ("gate_scale", "residual_scale", "noise_scale")
DEFAULTS = {
    "experts_per_token": 2,
    "temperature": 1.0,
    "gate_scale": 1.0,
    "residual_scale": 1.0,
    "noise_scale": 0.0,
}
WHERE = (
    "in a mixture ranges and choices go in gate_mode, experts_per_token, temperature, "
    "dense_layers and an expert's take_part, gate_scale, residual_scale and noise_scale only"
)
_LIFTED = ("base_model", "dtype")  # mergekit-moe has them beside the experts
_DENSE_PART = {"merge_method", "models", "slices", "modules"}


def long_form(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe whose ``moe`` alone says what the rest is with that rest written out.

    What cannot be is left as it is: the reader of recipes says what is wrong with it.
    """
    moe = data.get(MOE)
    if not isinstance(moe, dict) or _DENSE_PART & data.keys():
        return dict(data)
    lifted = {key: moe[key] for key in _LIFTED if moe.get(key) is not None}
    base = lifted.get("base_model", data.get("base_model"))
    if base is None or lifted.keys() & data.keys():
        return dict(data)
    rest = {key: value for key, value in {**data, **lifted}.items() if key != "base_model"}
    inner = {key: value for key, value in moe.items() if key not in _LIFTED}
    return {"merge_method": "passthrough", "models": [{"model": base}], **rest, MOE: inner}


def expert_of(place: Place) -> Place | None:
    """Return the place of the expert that a place is in, or None outside of experts."""
    inside = place[:1] == (MOE,) and place[1:2] in [(key,) for key in BOTH]
    return place[:3] if inside and len(place) > 3 else None


def is_dense(place: Place, data: Any) -> bool:
    """Return whether layers with one MLP are searched there."""
    return place == DENSE and isinstance(data, dict)


def dense_knob(node: Node) -> Knob | None:
    """Read ``dense_layers: {per: layer}``, ``per: N`` or bands: a choice for each of them."""
    for key in sorted(node.data.keys() - {"per"}, key=str):
        node.at(key).refuse("layers are dense or not; give per only")
    if node.data.get("per", "tensor") == "tensor":
        node.expected("{per: layer}, {per: N} or {per: [[first, last], ...]}")
        return None
    said = {"low": 0.0, "high": 1.0, "per": node.data["per"]}
    found = ranges.parse(said, DENSE, node.path, node.problems)
    nan = float("nan")
    return found and replace(found, low=nan, high=nan, choices=(False, True))


def check_place(place: Place, node: Node) -> None:
    """Refuse a knob of a mixture where none may stand, or of another kind than goes there."""
    if place == GATE_MODE:
        _check_modes(node)
    elif place == TEMPERATURE:
        _check_single(node)
    elif expert_of(place) is None or place[3:] not in [(key,) for key in OF_EXPERT]:
        node.refuse(WHERE)
    else:
        _check_single(node)


def _check_modes(node: Node) -> None:
    names = node.data.get("choices")
    if names is None:
        node.refuse("expected a gate mode or choices, got a range")
    known = (*GATE_MODES, *ALIASES)
    for name in names if isinstance(names, list) else ():
        if name not in known:
            node.refuse(f"no gate mode {shown(name)}{hint(str(name), known)}")


def _check_single(node: Node) -> None:
    for key in [key for key in (*ranges.UNITS, "ordered", "sum") if node.data.get(key)]:
        node.at(key).refuse("is for parameters; here is one value")


def modes(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the gate modes that a recipe with knobs may have; none: it is no mixture."""
    moe = data.get(MOE)
    if not isinstance(moe, Mapping):
        return ()
    given = moe.get("gate_mode") or "hidden"
    names = given.get("choices") if isinstance(given, Mapping) else [given]
    names = names if isinstance(names, list) else []
    return tuple(ALIASES.get(str(name), str(name)) for name in names)


def mode_of(data: Mapping[str, Any], values: Mapping[Place, Any]) -> str:
    """Return the gate mode, chosen or written."""
    return str(values.get(GATE_MODE) or next(iter(modes(data)), ""))


def draws(data: Mapping[str, Any]) -> bool:
    """Return whether a mixture may use the recipe's seed: for routers, or for noise."""
    moe = data.get(MOE)
    if not isinstance(moe, Mapping):
        return False
    noisy = any(one.get("noise_scale") for key in BOTH for one in _entries(moe.get(key)))
    return noisy or any(mode not in (*PROMPTED, TRAINED) for mode in modes(data))


def taking_part(data: Mapping[str, Any], values: Mapping[Place, Any]) -> dict[int, bool]:
    """Return whether each expert is one, by its position.

    Where fewer are left than a token is sent to, the first of those that are out come back in.
    """
    count = len(data[MOE][EXPERTS])
    least = values.get(PER_TOKEN, data[MOE].get("experts_per_token", 2))
    least = int(least) if isinstance(least, int | float) else 1  # one that is wrong is named
    takes = {i: bool(values.get((MOE, EXPERTS, i, TAKE_PART), True)) for i in range(count)}
    for i in takes:
        if not takes[i] and sum(takes.values()) < least:
            takes[i] = True
    return takes


def used(data: Mapping[str, Any], place: Place, values: Mapping[Place, Any]) -> bool:
    """Return whether a knob under ``moe`` changes anything; ``values``: of those that decide."""
    if place[-1] in FITTED and mode_of(data, values) == TRAINED:
        return False
    if place[1] != EXPERTS or place[-1] == TAKE_PART:
        return True
    return taking_part(data, values)[int(place[2])]


def fill_in(data: dict[str, Any], before: Mapping[str, Any], values: Mapping[Place, Any]) -> None:
    """Take out of a filled recipe what its mixture has no use for.

    Args:
        data: The recipe with values at the places of its knobs; is changed.
        before: With its knobs.
        values: By the knobs' places; of a knob that changes nothing there need be none.
    """
    moe = data[MOE]
    if TRAINED in modes(before) and mode_of(before, values) == TRAINED:
        for owner in (moe, *_entries(moe[EXPERTS])):
            for key in FITTED:
                owner.pop(key, None)
    if any((MOE, EXPERTS, i, TAKE_PART) in values for i in range(len(moe[EXPERTS]))):
        takes = taking_part(before, values)
        moe[EXPERTS] = [expert for i, expert in enumerate(moe[EXPERTS]) if takes[i]]
        for expert in _entries(moe[EXPERTS]):
            expert.pop(TAKE_PART, None)


def layers_of(dense: list[bool]) -> list[int]:
    """Return the numbers of dense layers; the last of all layers keeps its experts then."""
    found = [i for i, one in enumerate(dense) if one]
    return found[:-1] if len(found) == len(dense) else found


def check_mixture(data: Any, path: str, problems: Problems) -> None:
    """Add what is wrong with ``moe`` in a study beyond what is wrong in a recipe."""
    if isinstance(data.get(EXPERTS), list) and MOE not in data:
        problems.append((join(path, EXPERTS), "a study has experts under `moe:`; put them there"))
    moe = data.get(MOE)
    if moe and isinstance(data.get("slices"), dict):
        rule = "experts need the layers of all models, a layer path drops and moves some; omit one"
        problems.append((join(path, MOE), rule))
    if not isinstance(moe, dict) or modes(data) != (TRAINED,):
        return
    where = join(path, MOE)
    rule = "the training of the routers settles it; remove it"
    problems.extend((join(where, key), rule) for key in FITTED if key in moe)
    listed = moe.get(EXPERTS)
    for i, expert in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(expert, dict) and "gate_scale" in expert:
            problems.append((f"{where}.{EXPERTS}[{i}].gate_scale", rule))


def _entries(listed: Any) -> list[dict[str, Any]]:
    """Return the entries of a list that are such, of what may be anything."""
    return [x for x in listed if isinstance(x, dict)] if isinstance(listed, list) else []

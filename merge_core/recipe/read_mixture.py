"""``moe:``, or a configuration of mergekit-moe as a whole -> the mixture, or what is wrong."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

from merge_core.errors import hint, join, shown
from merge_core.recipe.mixture_schema import ALIASES, GATE_MODES, PROMPTED, Expert, Mixture
from merge_core.recipe.read_fields import Node, whole_number

EXPERT = ("source_model", "positive_prompts", "negative_prompts")
SCALES = ("noise_scale", "residual_scale", "gate_scale")
OWN = ("experts", "shared_experts", "gate_mode", "experts_per_token", "architecture")
OURS = ("temperature", "dense_layers", "gates")
OF_RECIPE = ("base_model", "dtype")  # mergekit-moe has them beside the experts
DENSE = {"merge_method", "models", "slices", "modules"}  # what says what the rest is
MOST = 1024  # experts


def lifted(node: Node) -> Node:
    """Return a recipe in its long form where ``moe`` alone says what the rest is, or no ``moe``.

    A configuration of mergekit-moe has the keys of ``moe`` beside those of a recipe; and one model,
    ``base_model``, that gives all but the experts. What stands where is left as it is, so that
    messages name the places of the file.
    """
    data = dict(node.data)
    inner = data.get("moe")
    if isinstance(inner, dict):
        for key in OF_RECIPE:
            if key in inner and inner[key] is not None:
                data = _taken(node, data, key)
    if not data.keys() & DENSE:
        data |= {"merge_method": "passthrough", "models": [{"model": data.pop("base_model", None)}]}
        if data["models"] == [{"model": None}]:
            where = node.at("moe") if "moe" in node.data else node
            replace(where, path=join(where.path, "base_model")).refuse(
                "required, or merge_method and models: what all but the experts is"
            )
    return replace(node, data=data)


def _taken(node: Node, data: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a recipe with what ``moe`` says in its place, unless it says so itself."""
    place = node.at("moe").at(key)
    if key == "base_model" and data.keys() & DENSE:
        place.refuse("the rest of the recipe says what all but the experts is; remove one of them")
    elif key in data:
        place.refuse(f"the recipe has {key} too; remove one of them")
    else:
        return {**data, key: place.data}
    return data


def mixture(node: Node) -> Mixture | None:
    """Read a mixture; None if there is none, or with problems."""
    if "moe" in node.data:
        place = node.at("moe").mapping("{experts, ...}", (*OWN, *OURS, *OF_RECIPE))
    else:
        place = node if "experts" in node.data else None
    if place is None:
        return None
    before = len(node.problems)
    made = Mixture(
        experts=_experts(place.at("experts"), "experts"),
        shared_experts=_shared(place),
        gate_mode=_gate_mode(place),
        experts_per_token=_per_token(place),
        architecture=place.text("architecture"),
        temperature=_number(place, "temperature", 1.0, above=0.0),
        dense_layers=_dense_layers(place),
        gates=place.text("gates"),
    )
    if len(node.problems) == before:
        _check(place, made)
    return made if len(node.problems) == before else None


def _shared(place: Node) -> tuple[Expert, ...]:
    given = place.data.get("shared_experts")
    return _experts(place.at("shared_experts"), "shared experts") if given else ()


def _experts(node: Node, what: str) -> tuple[Expert, ...]:
    places = node.entries(what)
    if len(places) > MOST:
        node.refuse(f"expected at most {MOST}, got {len(places)}")
        return ()
    made = []
    for place in places:
        entry = place.mapping("{source_model, positive_prompts, ...}", (*EXPERT, *SCALES))
        if entry is None:
            continue
        expert = Expert(
            entry.reference("source_model", required=True) or "",
            _prompts(entry, "positive_prompts"),
            _prompts(entry, "negative_prompts"),
            _number(entry, "noise_scale", 0.0, least=0.0),
            _number(entry, "residual_scale", 1.0),
            _number(entry, "gate_scale", 1.0),
        )
        made.append(expert)
    return tuple(made)


def _prompts(node: Node, key: str) -> tuple[str, ...]:
    if key not in node.data or node.data[key] == []:
        return ()
    found = []
    for place in node.at(key).entries("prompts"):
        if isinstance(place.data, str) and place.data:
            found.append(place.data)
        else:
            place.expected("a prompt (text in quotes)")
    return tuple(found)


def _number(
    node: Node, key: str, default: float, *, least: float | None = None, above: float | None = None
) -> float:
    """Return a finite number, at least ``least`` and above ``above`` where they are given."""
    if key not in node.data:
        return default
    value = node.data[key]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    low = -math.inf if least is None else least
    if number and math.isfinite(value) and value >= low and (above is None or value > above):
        return float(value)
    bound = f" of at least {least:g}" if least is not None else ""
    bound = f" above {above:g}" if above is not None else bound
    node.at(key).expected(f"a number{bound}")
    return default


def _gate_mode(node: Node) -> str:
    name = node.text("gate_mode") or "hidden"
    name = ALIASES.get(name, name)
    if name not in GATE_MODES:
        known = ", ".join(GATE_MODES)
        node.at("gate_mode").refuse(
            f"expected one of {known}, got {name!r}{hint(name, GATE_MODES)}"
        )
    return name


def _per_token(node: Node) -> int:
    given = node.data.get("experts")
    count = len(given) if isinstance(given, list) and given else 1
    if "experts_per_token" not in node.data:
        if given and count < 2:
            rule = "required where there is one expert: it is 2 otherwise"
            node.at("experts_per_token").refuse(rule)
        return 2
    words = f"1 to {count}, the number of experts"
    return node.whole("experts_per_token", 1, count, words) or 2


def _dense_layers(node: Node) -> tuple[int, ...]:
    if not node.data.get("dense_layers"):
        return ()
    found = set()
    for place in node.at("dense_layers").entries("numbers of layers"):
        number = whole_number(place.data)
        if number is None or number < 0:
            place.expected("the number of a layer, from 0")
        elif number in found:
            place.refuse(f"{number} is listed twice")
        else:
            found.add(number)
    return tuple(sorted(found))


def _check(place: Node, made: Mixture) -> None:
    """Check what the keys ask of each other."""
    experts = place.at("experts")
    if made.gates is not None and made.gate_mode != "trained":
        rule = f"is read with gate_mode: trained only, got {made.gate_mode}; remove one of them"
        place.at("gates").refuse(rule)
    if made.gate_mode in PROMPTED:
        for i, expert in enumerate(made.experts):
            if not expert.positive_prompts:
                experts.at(i).at("positive_prompts").refuse(
                    f"required by gate_mode: {made.gate_mode}, which makes the routers from them"
                )
        prompts = Counter((x.positive_prompts, x.negative_prompts) for x in made.experts)
        if len(prompts) == 1 and len(made.experts) > 1:
            experts.notice(
                "all have the same prompts, so their routers' rows are equal and the same "
                f"{made.experts_per_token} get every token; give each its own"
            )
    weights = {(x.source_model, x.noise_scale, x.residual_scale) for x in made.experts}
    if len(weights) == 1 and len(made.experts) > 1 and not made.experts[0].noise_scale:
        experts.notice(
            f"all are {shown(made.experts[0].source_model)}: it computes what one does, at more "
            "cost, until it is trained"
        )

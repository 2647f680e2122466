"""The recipe of a study file as a JSON schema: the mergekit dialect, with knobs in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from merge_core.methods.registry import METHODS, method
from merge_core.recipe import read, read_mixture
from merge_core.recipe.mixture_schema import ALIASES, GATE_MODES
from merge_core.validation import StrictModel
from search.spec.key_meanings import MEANINGS
from search.spec.layer_path import LayerPathKeys
from search.spec.ranges import SEARCH, ChoicesKeys, RangeKeys

Schema: TypeAlias = dict[str, Any]
OfKeys: TypeAlias = Callable[[type[StrictModel], str], Schema]
MODEL, VALUE, KNOB, PARAMETERS = (
    {"$ref": f"#/$defs/{name}"} for name in ("model", "value", "knob", "parameters")
)
WHOLE = {"type": "integer", "minimum": 0}
TEXT = {"type": "string", "minLength": 1}


def recipe(of_keys: OfKeys) -> Schema:
    """Return the schema of the section.

    Args:
        of_keys: Makes the schema of a mapping, see ``json_schema.of_keys``.
    """
    mixture = _mixture()
    path = of_keys(LayerPathKeys, "recipe.slices.path")
    path["properties"]["parents"] = {"type": "array", "items": MODEL, "minItems": 1}
    path["properties"]["input_scale"] = KNOB
    path["properties"]["max_bytes"] = {"type": ["integer", "string", "null"]}
    keys: dict[str, Schema] = {
        "merge_method": {"anyOf": [{"enum": list(METHODS.names())}, KNOB]},
        "models": {"type": "array", "items": _entry({"take_part": _or_knob({"type": "boolean"})})},
        "slices": {"anyOf": [_slices(), _closed({"path": path}, ["path"])]},
        "modules": {"type": "object", "additionalProperties": _part()},
        "base_model": MODEL,
        "parameters": PARAMETERS,
        "dtype": _dtypes(),
        "out_dtype": _dtypes(),
        "seed": _or_knob(WHOLE),
        "name": TEXT,
        "tokenizer_source": MODEL,
        "tokenizer": {"type": "object"},
        "chat_template": TEXT,
        "moe": _closed(mixture, ["experts"]),
        "documents": {"type": "array", "items": {"type": "object"}},
        **{key: mixture[key] for key in (*read_mixture.OWN, *read_mixture.OURS)},
    }
    for key, value in keys.items():
        if f"recipe.{key}" in MEANINGS:
            keys[key] = {"description": MEANINGS[f"recipe.{key}"], **value}
    return _closed(keys, [])


def definitions(of_keys: OfKeys) -> dict[str, Schema]:
    """Return what stands at many places: models, knobs, values of parameters."""
    place = _closed({"path": TEXT, "revision": TEXT}, ["path"])
    plain = {"type": ["number", "boolean", "string"]}
    case: dict[str, Schema] = {
        "filter": {"type": ["string", "null"]},
        "value": {"$ref": "#/$defs/value"},
    }
    return {
        "model": {
            "description": MEANINGS["model"],
            "anyOf": [TEXT, _closed({"model": place, "lora": place}, ["model"])],
        },
        "knob": {
            "description": MEANINGS["knob"],
            "anyOf": [
                {"const": SEARCH},
                of_keys(RangeKeys, "knob"),
                {**of_keys(ChoicesKeys, "knob"), "required": ["choices"]},
            ],
        },
        "value": {
            "anyOf": [
                plain,
                {"type": "array", "items": {"anyOf": [plain, KNOB]}},
                {"type": "array", "items": _closed(case, ["value"])},
                KNOB,
            ]
        },
        "parameters": {**_closed(_parameters(), []), "type": ["object", "null"]},
    }


def _parameters() -> dict[str, Schema]:
    """Return every parameter of a method; which methods have it, and what it does there."""
    found: dict[str, dict[str, list[str]]] = {}
    for name in METHODS.names():
        for param in method(name).params:
            found.setdefault(param.name, {}).setdefault(param.meaning, []).append(name)
    return {
        name: {
            "description": "; ".join(f"{text} ({', '.join(of)})" for text, of in said.items()),
            **VALUE,
        }
        for name, said in sorted(found.items())
    }


def _entry(more: dict[str, Schema]) -> Schema:
    return _closed({"model": MODEL, "parameters": PARAMETERS, **more}, ["model"])


def _slices() -> Schema:
    ends = {"type": "array", "items": _or_knob(WHOLE), "minItems": 2, "maxItems": 2}
    one: dict[str, Schema] = {
        "sources": {"type": "array", "items": _entry({"layer_range": ends}), "minItems": 1},
        "base_model": MODEL,
        "input_scale": _or_knob({"type": "number"}),
        "parameters": PARAMETERS,
    }
    return {"type": "array", "items": _closed(one, ["sources"])}


def _part() -> Schema:
    models = {"type": "array", "items": _entry({})}
    return _closed({"models": models, "slices": _slices(), "parameters": PARAMETERS}, [])


def _mixture() -> dict[str, Schema]:
    number = _or_knob({"type": "number"})
    prompts = {"type": "array", "items": TEXT}
    expert = {
        "source_model": MODEL,
        **dict.fromkeys(read_mixture.EXPERT[1:], prompts),
        **dict.fromkeys(read_mixture.SCALES, number),
        "take_part": _or_knob({"type": "boolean"}),
    }
    experts = {"type": "array", "items": _closed(expert, ["source_model"])}
    layers = {"type": "array", "items": WHOLE}
    return {
        "experts": experts,
        "shared_experts": experts,
        "gate_mode": _or_knob({"enum": [*GATE_MODES, *ALIASES]}),
        "experts_per_token": _or_knob({"type": "integer", "minimum": 1}),
        "architecture": TEXT,
        "temperature": number,
        "dense_layers": {"anyOf": [layers, {"type": "object"}]},
        "gates": TEXT,
        "base_model": MODEL,
        "dtype": _dtypes(),
    }


def _dtypes() -> Schema:
    return {"enum": [*read.DTYPES, *(f"torch.{name}" for name in read.DTYPES)]}


def _or_knob(plain: Schema) -> Schema:
    return {"anyOf": [plain, KNOB]}


def _closed(properties: dict[str, Schema], required: list[str]) -> Schema:
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, "required": required} if required else found

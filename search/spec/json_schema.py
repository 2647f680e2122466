"""A study file as a JSON schema, for editors: keys, what they take, and what they mean.

It is made of the declarations that study files are read by. What depends on several keys together
is beyond it: ``mergetune check`` says that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from evaluators.registry import EVALUATORS
from merge_core.validation import StrictModel
from search.samplers.registry import SAMPLERS
from search.spec import recipe_json_schema
from search.spec.key_meanings import MEANINGS
from search.spec.score import Score
from search.spec.sections import Race
from search.spec.study_file import StudyFile

Schema: TypeAlias = dict[str, Any]
FILE = "study.schema.json"
MARK = f"# yaml-language-server: $schema={FILE}"  # the first line of a study file beside it
ABOUT = "A study file of mergetune; `mergetune check` says what a schema cannot."


class _Lenient(GenerateJsonSchema):
    """Leaves open what is read by a function of its own: recipes, models, knobs."""

    def function_plain_schema(self, schema: Any) -> JsonSchemaValue:
        """Return a schema that takes anything."""
        return {}

    def dataclass_schema(self, schema: Any) -> JsonSchemaValue:
        """Return a schema that takes anything."""
        return {}


def study() -> Schema:
    """Return the schema of study files, with the evaluators and methods that are installed."""
    found = of_keys(StudyFile, "")
    properties = found["properties"]
    properties["recipe"] = recipe_json_schema.recipe(of_keys)
    properties["score"] = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/score"}}
    files = {"type": "object", "additionalProperties": {"type": "string"}}
    properties["baselines"] = {"anyOf": [files, {"type": "null"}]}
    search = properties["search"]["properties"]
    search["start"] = {"type": ["string", "null"]}
    search["sampler"] = {"type": "string", "enum": list(SAMPLERS.names()), "default": "auto"}
    race = of_keys(Race, "search.race")
    search["race"] = {"anyOf": [{"enum": ["on", "off", True, False, None]}, race]}
    _describe(properties, "")
    _describe(search, "search.")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mergetune study",
        "description": ABOUT,
        **found,
        "$defs": {"score": _score(), **recipe_json_schema.definitions(of_keys)},
    }


def text() -> str:
    """Return the schema as the text of a file."""
    return json.dumps(study(), indent=1, ensure_ascii=False) + "\n"


def of_keys(model: type[StrictModel], path: str) -> Schema:
    """Return the schema of a mapping, without references to others.

    Args:
        model: The keys.
        path: Where they stand in a study file, for their meanings; "" for the file itself.
    """
    made = model.model_json_schema(schema_generator=_Lenient, by_alias=True)
    definitions = made.pop("$defs", {})
    found: Schema = _plain(made, definitions)
    start = f"{path}." if path else ""
    for key, value in found["properties"].items():
        if isinstance(value.get("properties"), dict):
            _describe(value["properties"], f"{start}{key}.")
    _describe(found["properties"], start)
    return found


def _describe(properties: Mapping[str, Schema], start: str) -> None:
    for key, value in properties.items():
        meaning = MEANINGS.get(f"{start}{key}")
        if meaning is not None:
            value["description"] = meaning


def _plain(part: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a schema with what it refers to in place, and without titles that repeat keys."""
    if isinstance(part, list):
        return [_plain(x, definitions) for x in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        rest = {key: x for key, x in part.items() if key != "$ref"}
        return _plain({**definitions[part["$ref"].rpartition("/")[2]], **rest}, definitions)
    kept = {key: x for key, x in part.items() if key != "title" or not isinstance(x, str)}
    if "properties" in kept:  # a docstring tells of attributes, not of keys
        kept.pop("description", None)
    return {key: _plain(x, definitions) for key, x in kept.items()}


def _score() -> Schema:
    """Return the schema of a score entry: the keys of every entry, and those of its evaluator."""
    own = of_keys(Score, "score")["properties"]
    own.pop("options", None)
    own["evaluator"] = {"type": "string", "enum": list(EVALUATORS.names())}
    _describe(own, "score.")
    cases = []
    for name in EVALUATORS.names():
        options = of_keys(EVALUATORS.get(name).options, f"score.{name}")
        cases.append(
            {
                "if": {"properties": {"evaluator": {"const": name}}, "required": ["evaluator"]},
                "then": {
                    "properties": {**own, **options["properties"]},
                    "required": options.get("required", []),
                    "additionalProperties": False,
                },
            }
        )
    return {
        "type": "object",
        "required": ["evaluator"],
        "properties": {"evaluator": own["evaluator"]},
        "allOf": cases,
    }

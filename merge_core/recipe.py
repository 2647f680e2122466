"""A recipe: what decides the bytes of a merged model and nothing else; frozen, with a digest."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

from merge_core.document import EXPONENT, SEXAGESIMAL

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Conditional:
    """A value for the tensors whose name contains ``filter`` (None: for all)."""

    filter: str | None
    value: Scalar | tuple[Scalar, ...]


Setting = Scalar | tuple[Scalar, ...] | tuple[Conditional, ...]
"""One value; a gradient over the layers; or conditionals, of which the first match holds."""

Settings = tuple[tuple[str, Setting], ...]
"""Parameter names with their settings, sorted by name."""


@dataclass(frozen=True)
class Source:
    """One model that goes into the merge, with the parameters that hold for it alone."""

    model: str
    parameters: Settings = ()


@dataclass(frozen=True)
class Recipe:
    """The mergekit dialect's ``models:`` form plus the seed of random masks.

    Args:
        merge_method: Name of a registered method.
        models: At least one; their order is the order of summation.
        base_model: The model that task vectors are measured from.
        parameters: Shared settings, and per-model ones for every model without its own.
        dtype: ``float32``, ``bfloat16`` or ``float16``; arithmetic is float32 whatever it says.
        out_dtype: The type that is written, if not ``dtype``.
        seed: Of the random masks; without effect where the method draws nothing.
    """

    merge_method: str
    models: tuple[Source, ...]
    base_model: str | None = None
    parameters: Settings = ()
    dtype: str | None = None
    out_dtype: str | None = None
    seed: int = 0

    def plain(self) -> dict[str, Any]:
        """Return the recipe as the plain data of its YAML document."""
        data: dict[str, Any] = {"merge_method": self.merge_method}
        if self.base_model is not None:
            data["base_model"] = self.base_model
        data["models"] = [_plain_source(source) for source in self.models]
        if self.parameters:
            data["parameters"] = _plain_settings(self.parameters)
        for key in ("dtype", "out_dtype"):
            if getattr(self, key) is not None:
                data[key] = getattr(self, key)
        if self.seed:
            data["seed"] = self.seed
        return data

    def to_yaml(self) -> str:
        """Return the recipe as a YAML document that mergekit reads too."""
        return yaml.dump(
            self.plain(), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100
        )

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON, hex; 1 and 1.0 are the same number."""
        text = json.dumps(_canonical(self.plain()), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def references(self) -> tuple[str, ...]:
        """Return every model reference once: the models in order, then the base if not listed."""
        listed = [source.model for source in self.models]
        return tuple(dict.fromkeys([*listed, *([self.base_model] if self.base_model else [])]))

    def with_references(self, names: dict[str, str]) -> Recipe:
        """Return the same recipe with its model references replaced as ``names`` says."""
        return Recipe(
            **{
                **{key: getattr(self, key) for key in self.__dataclass_fields__},
                "models": tuple(Source(names[s.model], s.parameters) for s in self.models),
                "base_model": names[self.base_model] if self.base_model else None,
            }
        )


class _Dumper(yaml.SafeDumper):
    """Quotes the names that ``document`` would read as numbers or refuse: ``1e5``, ``0:30``."""


for _pattern in (EXPONENT, SEXAGESIMAL):
    _Dumper.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(f"^(?:{_pattern.pattern})$"), list("-+.0123456789")
    )


def _plain_source(source: Source) -> dict[str, Any]:
    data: dict[str, Any] = {"model": source.model}
    if source.parameters:
        data["parameters"] = _plain_settings(source.parameters)
    return data


def _plain_settings(settings: Settings) -> dict[str, Any]:
    return {name: _plain_setting(setting) for name, setting in settings}


def _plain_setting(setting: Setting) -> Any:
    if not isinstance(setting, tuple):
        return setting
    return [_plain_conditional(x) if isinstance(x, Conditional) else x for x in setting]


def _plain_conditional(conditional: Conditional) -> dict[str, Any]:
    value = conditional.value
    data = {"value": list(value) if isinstance(value, tuple) else value}
    return data if conditional.filter is None else {"filter": conditional.filter, **data}


def _canonical(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _canonical(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_canonical(value) for value in data]
    if isinstance(data, int) and not isinstance(data, bool):
        return float(data) if abs(data) < 2**53 else data
    return data

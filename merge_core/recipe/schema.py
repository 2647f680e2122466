"""A recipe: what decides the bytes of a merged model and nothing else; frozen, with a digest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from merge_core.recipe import serialize
from merge_core.recipe.mixture_schema import Mixture
from merge_core.recipe.tokenizer_schema import TokenizerSetting, with_references

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Conditional:
    """A value for the tensors whose name contains ``filter`` (None: for all)."""

    filter: str | None
    value: Scalar | tuple[Scalar, ...]

    @property
    def meant_as_expression(self) -> bool:
        """Whether the filter has signs that no tensor's name has, as a regular expression would."""
        return self.filter not in (None, "*") and bool(re.search(r"[^\w./-]", str(self.filter)))


Setting = Scalar | tuple[Scalar, ...] | tuple[Conditional, ...]
"""One value; a gradient over the layers; or conditionals, of which the first match holds."""

Settings = tuple[tuple[str, Setting], ...]
"""Parameter names with their settings, sorted by name."""


@dataclass(frozen=True)
class Source:
    """One model that goes into a merge, with the parameters that hold for it alone."""

    model: str  # a reference, or the name of another document
    parameters: Settings = ()
    layer_range: tuple[int, int] | None = None  # the first and the one after the last; None: all


@dataclass(frozen=True)
class Slice:
    """Layers of the result: as many as each of its sources gives."""

    sources: tuple[Source, ...]  # each model once, all with equally many layers
    base_model: str | None = None  # in place of the recipe's
    parameters: Settings = ()  # shared settings of these layers
    # The hidden state is multiplied by it ahead of the first of these layers; finite, not 0. Only
    # in a recipe with one stack of layers.
    input_scale: float = 1.0


@dataclass(frozen=True)
class ModulePart:
    """The part of a recipe for one module of a model: an encoder, a decoder, a projector."""

    name: str  # see ``layers.modules_of``
    models: tuple[Source, ...] = ()  # each over all layers; or
    slices: tuple[Slice, ...] = ()  # layer by layer
    parameters: Settings = ()  # shared settings of the module


@dataclass(frozen=True)
class Recipe:
    """The mergekit dialect plus the seed of random masks.

    Args:
        merge_method: Name of a registered method.
        models: Their order is the order of summation; empty where there are slices or modules.
        base_model: The model that task vectors are measured from.
        parameters: Shared settings, and per-model ones for every model without its own.
        dtype: ``float32``, ``bfloat16`` or ``float16``; arithmetic is float32 whatever it says.
        out_dtype: The type that is written, if not ``dtype``.
        seed: Of the random masks; without effect where the method draws nothing.
        slices: Layers in the order of the result.
        modules: For models with several layer stacks.
        moe: Experts in place of the MLPs; what is said above is all else then.
        tokenizer: Whose vocabulary the result has; None for the base's, rows as they are.
        chat_template: ``auto``, a name, or Jinja text.
        name: By which other documents refer to this one.
        documents: The recipes that this one refers to by name, referred ones first.
    """

    merge_method: str
    models: tuple[Source, ...] = ()
    base_model: str | None = None
    parameters: Settings = ()
    dtype: str | None = None
    out_dtype: str | None = None
    seed: int = 0
    slices: tuple[Slice, ...] = ()
    modules: tuple[ModulePart, ...] = ()
    tokenizer: TokenizerSetting | None = None
    chat_template: str | None = None
    name: str | None = None
    documents: tuple[Recipe, ...] = ()
    moe: Mixture | None = None

    def plain(self) -> dict[str, Any]:
        """Return the recipe as plain data: its YAML document, others under ``documents``."""
        data = self._own()
        if self.documents:
            data["documents"] = [document._own() for document in self.documents]
        return data

    def _own(self) -> dict[str, Any]:
        text = ("dtype", "out_dtype", "chat_template")
        return _plain(
            self,
            *("name", "merge_method", "base_model", *PART, "modules", "moe"),
            *(*text, "tokenizer", "seed"),
        )

    def to_yaml(self) -> str:
        """Return the recipe as YAML that mergekit reads too; several documents if it has others."""
        return serialize.to_yaml([*(document._own() for document in self.documents), self._own()])

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON, hex; 1 and 1.0 are the same number."""
        return serialize.digest(self.plain())

    def sources(self) -> Iterator[Source]:
        """Yield every source of this document, in order; a model may come several times."""
        yield from self.models
        for one in self.all_slices():
            yield from one.sources
        for part in self.modules:
            yield from part.models

    def all_slices(self) -> Iterator[Slice]:
        """Yield every slice of this document, in order."""
        yield from self.slices
        for part in self.modules:
            yield from part.slices

    def names(self) -> tuple[str, ...]:
        """Return what this document merges, once each: models in order, then bases not listed.

        Experts are not among them.
        """
        bases = [self.base_model, *(one.base_model for one in self.all_slices())]
        listed = [source.model for source in self.sources()]
        return tuple(dict.fromkeys([*listed, *(base for base in bases if base)]))

    def references(self) -> tuple[str, ...]:
        """Return every reference once, those of experts, tokenizers and routers' files included.

        Names of documents are not.
        """
        inside = [name for document in self.documents for name in document.references()]
        extra = self.tokenizer.references() if self.tokenizer is not None else ()
        experts = self.moe.references() if self.moe is not None else ()
        documents = {document.name for document in self.documents}
        found = dict.fromkeys([*self.names(), *experts, *extra, *inside])
        return tuple(name for name in found if name not in documents)

    def filters(self) -> Iterator[tuple[str, str, str | None]]:
        """Yield key path and text of every filter of this document, with the source it is of.

        The last is None for those of shared settings; what is meant as an expression is left out.
        """
        for path, model, settings in _all_settings(self, ""):
            for name, setting in settings:
                cases = setting if isinstance(setting, tuple) else ()
                for i, case in enumerate(cases):
                    if not isinstance(case, Conditional) or case.meant_as_expression:
                        continue
                    place = f"[{i}]" if len(cases) > 1 else ""
                    if case.filter not in (None, "*"):
                        yield f"{path}.{name}{place}.filter", str(case.filter), model

    def with_references(self, names: Mapping[str, str]) -> Recipe:
        """Return the same recipe with its model references replaced as ``names`` says."""
        renamed: Recipe = with_references(self, names)
        return renamed


def _all_settings(
    part: Recipe | ModulePart | Slice, path: str
) -> Iterator[tuple[str, str | None, Settings]]:
    """Yield key path, model and settings of all in a part that has settings."""
    start = f"{path}." if path else ""
    yield f"{start}parameters", None, part.parameters
    key, sources = ("sources", part.sources) if isinstance(part, Slice) else ("models", part.models)
    for i, source in enumerate(sources):
        yield f"{start}{key}[{i}].parameters", source.model, source.parameters
    for i, one in enumerate(() if isinstance(part, Slice) else part.slices):
        yield from _all_settings(one, f"{start}slices[{i}]")
    for module in part.modules if isinstance(part, Recipe) else ():
        yield from _all_settings(module, f"modules.{module.name}")


PART = ("models", "slices", "parameters")


def _plain(part: Any, *keys: str) -> dict[str, Any]:
    """Return what stands under keys of a part; nothing, 0 and empty ones are left out."""
    given = {key: getattr(part, key) for key in keys}
    return {key: _MEMBERS.get(key, lambda x: x)(value) for key, value in given.items() if value}


def _plain_setting(setting: Any) -> Any:
    if isinstance(setting, tuple):
        return [_plain_setting(x) for x in setting]
    if not isinstance(setting, Conditional):
        return setting
    data = {"value": _plain_setting(setting.value)}
    return data if setting.filter is None else {"filter": setting.filter, **data}


def _plain_sources(sources: tuple[Source, ...]) -> list[dict[str, Any]]:
    return [_plain(source, "model", "layer_range", "parameters") for source in sources]


def _plain_slice(one: Slice) -> dict[str, Any]:
    scale = {} if one.input_scale == 1 else {"input_scale": one.input_scale}
    return {**_plain(one, "sources", "base_model"), **scale, **_plain(one, "parameters")}


_MEMBERS: dict[str, Callable[[Any], Any]] = {
    "model": serialize.plain_reference,
    "base_model": serialize.plain_reference,
    "models": _plain_sources,
    "sources": _plain_sources,
    "slices": lambda slices: [_plain_slice(x) for x in slices],
    "parameters": lambda settings: {name: _plain_setting(x) for name, x in settings},
    "layer_range": list,
    "modules": lambda parts: {part.name: _plain(part, *PART) for part in parts},
    "tokenizer": TokenizerSetting.plain,
    "moe": Mixture.plain,
}

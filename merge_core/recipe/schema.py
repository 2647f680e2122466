"""A recipe: what decides the bytes of a merged model and nothing else; frozen, with a digest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from merge_core.recipe import serialize
from merge_core.recipe.tokenizer_schema import TokenizerSetting

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
    """One model that goes into a merge, with the parameters that hold for it alone.

    Args:
        model: A reference, or the name of another document.
        parameters: Its own settings.
        layer_range: First layer and the one after the last; None for all layers.
    """

    model: str
    parameters: Settings = ()
    layer_range: tuple[int, int] | None = None


@dataclass(frozen=True)
class Slice:
    """Layers of the result: as many as each of its sources gives.

    Args:
        sources: Each model once, all with equally many layers.
        base_model: In place of the recipe's.
        parameters: Shared settings of these layers.
    """

    sources: tuple[Source, ...]
    base_model: str | None = None
    parameters: Settings = ()


@dataclass(frozen=True)
class ModulePart:
    """The part of a recipe for one module of a model: an encoder, a decoder, a projector.

    Args:
        name: See ``layers.modules_of``.
        models: Each over all layers; or
        slices: layer by layer.
        parameters: Shared settings of the module.
    """

    name: str
    models: tuple[Source, ...] = ()
    slices: tuple[Slice, ...] = ()
    parameters: Settings = ()


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

    def plain(self) -> dict[str, Any]:
        """Return the recipe as plain data: its YAML document, others under ``documents``."""
        data = self._own()
        if self.documents:
            data["documents"] = [document._own() for document in self.documents]
        return data

    def _own(self) -> dict[str, Any]:
        modules = {part.name: _present(_part(part)) for part in self.modules}
        return _present(
            {
                "name": self.name,
                "merge_method": self.merge_method,
                "base_model": _plain_reference(self.base_model),
                **_part(self),
                "modules": modules,
                "dtype": self.dtype,
                "out_dtype": self.out_dtype,
                "chat_template": self.chat_template,
                "tokenizer": self.tokenizer and self.tokenizer.plain(),
                "seed": self.seed,
            }
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
        """Return what this document merges, once each: models in order, then bases not listed."""
        bases = [self.base_model, *(one.base_model for one in self.all_slices())]
        listed = [source.model for source in self.sources()]
        return tuple(dict.fromkeys([*listed, *(base for base in bases if base)]))

    def references(self) -> tuple[str, ...]:
        """Return every model reference once, tokenizers' included, document names not."""
        inside = [name for document in self.documents for name in document.references()]
        extra = self.tokenizer.references() if self.tokenizer is not None else ()
        documents = {document.name for document in self.documents}
        found = dict.fromkeys([*self.names(), *extra, *inside])
        return tuple(name for name in found if name not in documents)

    def with_references(self, names: Mapping[str, str]) -> Recipe:
        """Return the same recipe with its model references replaced as ``names`` says."""

        def renamed(source: Source) -> Source:
            return replace(source, model=names.get(source.model, source.model))

        def sliced(one: Slice) -> Slice:
            base = names.get(one.base_model, one.base_model) if one.base_model else None
            return replace(one, sources=tuple(map(renamed, one.sources)), base_model=base)

        def of(part: Any) -> dict[str, Any]:
            return {
                "models": tuple(map(renamed, part.models)),
                "slices": tuple(map(sliced, part.slices)),
            }

        base, tokenizer = self.base_model, self.tokenizer
        return replace(
            self,
            **of(self),
            base_model=names.get(base, base) if base else None,
            modules=tuple(replace(part, **of(part)) for part in self.modules),
            tokenizer=tokenizer.with_references(names) if tokenizer is not None else None,
            documents=tuple(document.with_references(names) for document in self.documents),
        )


def _part(part: Recipe | ModulePart) -> dict[str, Any]:
    return {
        "models": [_plain_source(source) for source in part.models],
        "slices": [_plain_slice(one) for one in part.slices],
        "parameters": _plain_settings(part.parameters),
    }


def _plain_slice(one: Slice) -> dict[str, Any]:
    return _present(
        {
            "sources": [_plain_source(source) for source in one.sources],
            "base_model": _plain_reference(one.base_model),
            "parameters": _plain_settings(one.parameters),
        }
    )


def _plain_source(source: Source) -> dict[str, Any]:
    return _present(
        {
            "model": _plain_reference(source.model),
            "layer_range": source.layer_range and list(source.layer_range),
            "parameters": _plain_settings(source.parameters),
        }
    )


def _present(data: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is not given: nothing, 0 and empty ones."""
    return {key: value for key, value in data.items() if value}


def _plain_reference(reference: str | None) -> Any:
    """Return a reference as YAML has it: its JSON, for paths with ``@`` or ``+``, as a mapping."""
    return json.loads(reference) if reference and reference.startswith("{") else reference


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

"""Recipe + parents' headers -> what to compute for every tensor. No tensor is read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from merge_core import layers
from merge_core.architecture import Architecture
from merge_core.errors import CheckpointError, ParameterError, ShapeError
from merge_core.mask import key_for
from merge_core.methods.declaration import Method, Value
from merge_core.methods.registry import method
from merge_core.parameters import value_of
from merge_core.parent import FLOATS, Parent
from merge_core.recipe import Recipe

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float32"}


@dataclass(frozen=True)
class Step:
    """One output tensor.

    Args:
        tensor: Its name, the same in all parents and in the result.
        shape: Its shape.
        values: The model parameters, one mapping per source; empty for a copy.
        shared: The shared parameters.
        keys: Mask keys, one per source; zeros where nothing is drawn.
        copied: The parents hold whole numbers here: they must be equal, and are copied.
    """

    tensor: str
    shape: tuple[int, ...]
    values: tuple[Mapping[str, Value], ...] = ()
    shared: Mapping[str, Value] = field(default_factory=dict)
    keys: tuple[int, ...] = ()
    copied: bool = False


@dataclass(frozen=True)
class Plan:
    """All steps of one recipe.

    Args:
        recipe: What is planned.
        method: Its method.
        sources: References of the models that go in, without the base where the method has one.
        base: Reference of the base that task vectors are measured from, or None.
        config_from: Reference of the parent that gives config and tokenizer.
        dtype: torch's name of the type that is written, such as ``bfloat16``.
        steps: In the order of tensor names.
        dropped: Stored tensor -> why it is not in the result.
    """

    recipe: Recipe
    method: Method
    sources: tuple[str, ...]
    base: str | None
    config_from: str
    dtype: str
    steps: tuple[Step, ...]
    dropped: Mapping[str, str]


def plan(recipe: Recipe, parents: Mapping[str, Parent], architecture: Architecture) -> Plan:
    """Resolve every parameter for every tensor and check that the parents fit together.

    Args:
        recipe: A valid recipe.
        parents: Every parent by its reference.
        architecture: Of the parent that gives the config.

    Raises:
        CheckpointError: A parent lacks a tensor that another has, or stores another kind of number.
        ShapeError: Two parents have different shapes for one tensor.
        ParameterError: A parameter has no value for some tensor.
    """
    found = method(recipe.merge_method)
    base = recipe.base_model if found.base != "none" else None
    sources = tuple(s.model for s in recipe.models if s.model != base)
    used = [name for name in dict.fromkeys([base, *sources]) if name is not None]
    config_from = recipe.base_model or used[0]
    stored = parents[config_from].tensors
    dropped = {
        name: reason
        for parent in used
        for name in parents[parent].tensors
        if (reason := architecture.reason_to_drop(name, stored)) is not None
    }
    _check_fit([parents[name] for name in used], dropped)
    resolver = _Resolver(recipe, found, sources, parents, layers.of(stored))
    steps = tuple(resolver.step(name) for name in sorted(stored) if name not in dropped)
    dtype = recipe.out_dtype or recipe.dtype or _common_dtype([parents[name] for name in used])
    return Plan(recipe, found, sources, base, config_from, dtype, steps, dropped)


class _Resolver:
    """Makes the steps of one plan."""

    def __init__(
        self,
        recipe: Recipe,
        found: Method,
        sources: tuple[str, ...],
        parents: Mapping[str, Parent],
        stack: layers.Layers,
    ) -> None:
        self._recipe, self._method, self._sources = recipe, found, sources
        self._parents, self._layers = parents, stack
        own = {source.model: dict(source.parameters) for source in recipe.models}
        self._own = [own[name] for name in sources]
        self._top = dict(recipe.parameters)

    def step(self, tensor: str) -> Step:
        info = self._parents[self._recipe.base_model or self._sources[0]].tensors[tensor]
        if info.dtype not in FLOATS:
            return Step(tensor, info.shape, copied=True)
        return Step(
            tensor,
            info.shape,
            values=tuple(self._values("model", tensor, [own, self._top]) for own in self._own),
            shared=self._values("shared", tensor, [self._top]),
            keys=tuple(self._key(tensor, name) for name in self._sources),
        )

    def _values(self, scope: str, tensor: str, given: list[dict[str, Any]]) -> dict[str, Value]:
        t = self._layers.place(tensor)
        values: dict[str, Value] = {}
        for param in self._method.params:
            if param.scope != scope:
                continue
            settings = [level[param.name] for level in given if param.name in level]
            values[param.name] = value_of(param, settings, tensor, t)
            rule = param.rule_broken_by(values[param.name])
            if rule is not None:
                raise ParameterError(f"{tensor}: {param.name}: {rule}")
        return values

    def _key(self, tensor: str, parent: str) -> int:
        if not self._method.draws:
            return 0
        return key_for(self._recipe.seed, tensor, self._parents[parent].digest)


def _check_fit(parents: list[Parent], dropped: Mapping[str, str]) -> None:
    first = parents[0]
    for other in parents[1:]:
        names, others = set(first.tensors) - set(dropped), set(other.tensors) - set(dropped)
        for have, lack, missing in ((first, other, names - others), (other, first, others - names)):
            if missing:
                raise CheckpointError(
                    f"{sorted(missing)[0]}: {have.reference} has it, {lack.reference} does not "
                    f"({len(missing)} such tensors); the parents must share one architecture"
                )
        for name in sorted(names):
            a, b = first.tensors[name], other.tensors[name]
            if a.shape != b.shape:
                raise ShapeError(
                    f"{name}: {first.reference} is {a.shape}, {other.reference} is {b.shape}; "
                    f"the parents must have the same shapes"
                )
            if (a.dtype in FLOATS) != (b.dtype in FLOATS):
                raise CheckpointError(
                    f"{name}: {first.reference} is {a.dtype}, {other.reference} is {b.dtype}"
                )


def _common_dtype(parents: list[Parent]) -> str:
    """Return the smallest type that holds all parents' floats; bfloat16 with float16 is float32."""
    kinds = {info.dtype for parent in parents for info in parent.tensors.values()} & set(FLOATS)
    return DTYPES[kinds.pop()] if len(kinds) == 1 else "float32"

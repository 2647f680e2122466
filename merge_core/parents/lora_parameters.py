"""Adapters on parameters (peft's ``target_parameters``), such as fused experts -> low-rank changes.

A parameter of E experts has A ``(r * E, in)``, whose rows go by expert, and B ``(out, r * E)``,
whose columns go by rank first. Several parameters of one module are wrapped one by one in their
order, so that the outermost wrapper, whose keys lack ``base_layer``, is that of the last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from merge_core.architecture.live_parameters import Block, LiveParameter, live_parameters
from merge_core.contract import Tensor
from merge_core.errors import CheckpointError, ShapeError
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import FLOATS, TensorInfo

LowRank = dict[str, dict[str, str]]  # module -> part -> key


@dataclass(frozen=True)
class Cut:
    """Which part of the two factors makes one stored tensor."""

    experts: int  # in all
    block: Block
    outputs_last: bool

    @property
    def transposed(self) -> bool:
        """Whether the stored tensor is the product's transpose."""
        return self.block.turned != self.outputs_last

    def of(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors ``(..., r, in)`` and ``(..., out, r)`` of the stored tensor."""
        block = self.block
        out, into = (block.rows, block.columns)[:: -1 if self.outputs_last else 1]
        a = a.reshape(self.experts, -1, a.shape[1])[slice(*block.experts), :, slice(*into)]
        b = b.reshape(len(b), -1, self.experts).permute(2, 0, 1)[slice(*block.experts)]
        b = b[:, slice(*out)]
        return (a, b) if block.stacked else (a[0], b[0])


class Settings(Protocol):
    """What is asked of the adapter's config."""

    data: dict[str, Any]
    mismatch: str

    def fit(self, modules: list[str]) -> None:
        """Look for patterns of these names."""

    def rank(self, module: str) -> float:
        """Return the rank of a module or parameter."""

    def scale(self, module: str) -> float:
        """Return what its product is multiplied by."""


def take(
    reference: str,
    parent: Parent,
    settings: Settings,
    low_rank: LowRank,
    stored: Mapping[str, TensorInfo],
) -> dict[str, dict[str, Any]]:
    """Take the modules out of ``low_rank`` that change parameters; return the changes' fields.

    Raises:
        CheckpointError: A parameter is not there, is not stored in blocks, or its keys are not two
            factors.
        ShapeError: Factors do not fit the parameter.
    """
    targets = _targets(reference, settings)
    if not targets:
        return {}
    wrapped: dict[str, list[str]] = {}
    for module in low_rank:
        wrapped.setdefault(re.sub(r"(\.base_layer)+$", "", module), []).append(module)
    known = live_parameters(parent.config, tuple(wrapped), parent.where, len(parent.tensors))
    found: dict[str, dict[str, Any]] = {}
    for module, wrappers in wrapped.items():
        aimed = [x for x in known.get(module, ()) if _is_target(x.name, targets)]
        if not aimed:
            continue
        if len(aimed) != len(wrappers):
            raise CheckpointError(
                f"{reference}: {module} has {len(wrappers)} pairs for {len(aimed)} of its "
                f"parameters that target_parameters names: {settings.mismatch}"
            )
        for wrapper, parameter in zip(sorted(wrappers, key=len), reversed(aimed), strict=True):
            pair = low_rank.pop(wrapper)
            settings.fit([parameter.name])
            found |= _changes(reference, parent, settings, pair, stored, parameter)
    return found


def _targets(reference: str, settings: Settings) -> list[str]:
    targets = settings.data.get("target_parameters") or []
    if not isinstance(targets, list) or not all(isinstance(x, str) for x in targets):
        raise CheckpointError(f"{reference}: target_parameters: expected a list of names")
    return targets


def _is_target(name: str, targets: Sequence[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _changes(
    reference: str,
    parent: Parent,
    settings: Settings,
    pair: Mapping[str, str],
    stored: Mapping[str, TensorInfo],
    parameter: LiveParameter,
) -> dict[str, dict[str, Any]]:
    """Return the changes of all stored tensors that hold parts of a parameter, by their names."""
    if {*pair} != {"lora_A", "lora_B"}:
        raise CheckpointError(
            f"{reference}: {parameter.name} has {sorted(pair)}, expected lora_A and lora_B alone"
        )
    a, b = pair["lora_A"], pair["lora_B"]
    r, (experts, rows, columns) = settings.rank(parameter.name), parameter.shape
    out, into = (rows, columns)[:: -1 if parameter.outputs_last else 1]
    if (stored[a].shape, stored[b].shape) != ((r * experts, into), (out, r * experts)):
        raise ShapeError(
            f"{parameter.name}: {reference} has A {stored[a].shape} and B {stored[b].shape} with "
            f"r = {r:g}, {parent.reference} is {parameter.shape}: {settings.mismatch}"
        )
    if not parameter.blocks or not parameter.blocks.keys() <= parent.tensors.keys():
        raise CheckpointError(
            f"{reference}: changes {parameter.name}, {parent.reference} does not store that in "
            f"blocks of one tensor each; merge with peft instead"
        )
    found: dict[str, dict[str, Any]] = {}
    scale = settings.scale(parameter.name)
    for name, block in parameter.blocks.items():
        types = {parent.tensors[name].dtype, stored[a].dtype, stored[b].dtype}
        if not types <= FLOATS.keys():
            raise CheckpointError(
                f"{name}: {parent.reference} and {reference} store {', '.join(sorted(types))}; "
                f"use a base that is not quantized"
            )
        cut = Cut(experts, block, parameter.outputs_last)
        found[name] = {"a": a, "b": b, "scale": scale, "transposed": cut.transposed, "cut": cut}
    return found

"""What stands under ``moe:``: experts, and how the routers that choose among them are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from merge_core.recipe.serialize import plain_reference

PROMPTED = ("hidden", "hidden_avg", "cheap_embed")  # routers are made from prompts
GATE_MODES = (*PROMPTED, "random", "uniform_random", "trained")
ALIASES = {"hidden_last": "hidden"}


@dataclass(frozen=True)
class Expert:
    """A model whose MLPs become one expert of every layer."""

    source_model: str  # a reference, or the name of another document
    positive_prompts: tuple[str, ...] = ()  # what is routed to it
    negative_prompts: tuple[str, ...] = ()  # what is not
    noise_scale: float = 0.0  # standard deviation of what is added to every weight of its MLPs
    residual_scale: float = 1.0  # factor on what its MLPs give: on the matrix that leads out
    gate_scale: float = 1.0  # factor on its row of the routers

    def plain(self) -> dict[str, Any]:
        """Return the plain data of its YAML."""
        return {"source_model": plain_reference(self.source_model), **_other_than_default(self)}


@dataclass(frozen=True)
class Mixture:
    """What stands under ``moe:``; the rest of the recipe says what everything else is merged from.

    Prompts are read by the recipe's ``base_model``, else by its first model; by the merge itself
    where the recipe stacks layers.

    Args:
        experts: In the order of their numbers.
        shared_experts: Those that see every token.
        gate_mode: One of ``GATE_MODES``.
        experts_per_token: How many experts a token is sent to, from 1 to all.
        architecture: The beginning of the result's model class in mergekit's words, in any case;
            None for the first that fits.
        temperature: Divides the routers' logits, above 0.
        dense_layers: Numbers of the result's layers that keep one MLP, that of the dense merge.
        gates: A safetensors file with the routers by their stored names in the result.
    """

    experts: tuple[Expert, ...]
    shared_experts: tuple[Expert, ...] = ()
    gate_mode: str = "hidden"
    experts_per_token: int = 2
    architecture: str | None = None
    temperature: float = 1.0
    dense_layers: tuple[int, ...] = ()
    gates: str | None = None

    def plain(self) -> dict[str, Any]:
        """Return the plain data of its YAML."""
        return {"experts": [expert.plain() for expert in self.experts], **_other_than_default(self)}

    def models(self) -> tuple[str, ...]:
        """Return every model that gives MLPs once, in order."""
        experts = (*self.experts, *self.shared_experts)
        return tuple(dict.fromkeys(expert.source_model for expert in experts))

    def references(self) -> tuple[str, ...]:
        """Return the models, and the file of the routers if there is one."""
        return (*self.models(), *([self.gates] if self.gates else []))


def _other_than_default(part: Expert | Mixture) -> Mapping[str, Any]:
    """Return the plain data of the fields that have a default and another value."""
    given = {field.name: getattr(part, field.name) for field in fields(part)}
    defaults = {field.name: field.default for field in fields(part)}
    return {
        key: _plain(value)
        for key, value in given.items()
        if key not in ("source_model", "experts") and value != defaults[key]
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(member) for member in value]
    return value.plain() if isinstance(value, Expert) else value

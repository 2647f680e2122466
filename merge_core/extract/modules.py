"""The modules of a model, what kind each is for peft, and where the class stores their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from merge_core.architecture import model_class
from merge_core.parents.protocol import Parent

Kind = Literal["linear", "conv1d", "other"]


@dataclass(frozen=True)
class Module:
    """A module with tensors of its own.

    Args:
        name: In the live model, as peft targets it.
        kind: ``linear`` stores ``(out, in)``, ``conv1d`` (GPT-2's) ``(in, out)``.
        tensors: Name in the module (``weight``, ``bias``) -> name under which the class stores it.
    """

    name: str
    kind: Kind
    tensors: Mapping[str, str]

    @property
    def weight(self) -> str | None:
        """Where the matrix is stored that a low-rank change can be of; None: there is none."""
        return self.tensors.get("weight") if self.kind != "other" else None


def modules(parent: Parent) -> list[Module]:
    """Return the modules whose tensors the parent stores one by one, in the order of the model.

    Raises:
        CheckpointError: transformers makes no model of the parent's config.
    """
    found = model_class.ask(parent.config, _kinds, parent.where, len(parent.tensors))
    live = [f"{name}.{own}" for name, (_, tensors) in found.items() for own in tensors]
    stored = parent.stored_names(live)
    made = []
    for name, (kind, tensors) in found.items():
        places = {own: stored[f"{name}.{own}"] for own in tensors}
        there = {own: place for own, place in places.items() if place in parent.tensors}
        if there:
            made.append(Module(name, kind, there))
    return made


def names_of_modules(parent: Parent) -> list[str]:
    """Return the names of all modules of a parent's class, with tensors or without."""
    return model_class.ask(parent.config, _names, parent.where, len(parent.tensors))


def _names(model: Any) -> list[str]:
    return [name for name, _ in model.named_modules()]


def _kinds(model: Any) -> dict[str, tuple[Kind, tuple[str, ...]]]:
    """Return name of a module -> its kind, and the names of its own tensors."""
    found = {}
    for name, module in model.named_modules():
        own = tuple(key for key in module.state_dict() if "." not in key)
        if own:
            found[name] = (_kind(module), own)
    return found


def _kind(module: Any) -> Kind:
    import torch
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, torch.nn.Linear):
        return "linear"
    return "conv1d" if isinstance(module, Conv1D) else "other"

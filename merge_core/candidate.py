"""The live candidate: one transformers model whose weights are overwritten in place.

Nothing else in mergetune writes to it, and nothing goes to disk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from merge_core import digest
from merge_core.errors import CheckpointError
from merge_core.execution import carry_out
from merge_core.parent import Parent, read_json
from merge_core.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

INERT = ("dtype", "torch_dtype", "transformers_version", "_name_or_path", "architectures")


class Candidate:
    """The model of one recipe, live in memory.

    Args:
        parents: Every parent of every recipe that will be built, by reference.
        device: torch's name of the device that the live model sits on.
    """

    def __init__(self, parents: Mapping[str, Parent], device: str = "cpu") -> None:
        self._parents = parents
        self._device = device
        self._model: Any = None
        self._made_for: tuple[str, str] | None = None  # how it behaves, and its type
        self._places: dict[str, Tensor] = {}
        self._behaviours: dict[str, str] = {}  # of the parents that gave a config so far

    @property
    def model(self) -> Any:
        """The live transformers model, in evaluation mode.

        The same object after every build, as long as ``dtype`` and the parents' configs agree.
        """
        assert self._model is not None, "build first"
        return self._model

    def build(self, plan: Plan) -> str:
        """Overwrite the live model with the plan's weights.

        Returns:
            The ``weights_digest``: 16 hex characters, equal for equal weights.

        Raises:
            NonFiniteError: A merged tensor is not finite. The model then holds a mixture of old
                and new weights, and the next build overwrites all of it.
            CheckpointError: The model class cannot be filled from the parents' tensors.
        """
        import torch

        self._prepare(plan)
        hashes = []
        with torch.no_grad():
            for step in plan.steps:
                merged = carry_out(plan, step, self._parents)
                self._places[step.tensor].copy_(merged)
                hashes.append(digest.tensor_digest(step.tensor, merged))
        return digest.combined(hashes)

    def _prepare(self, plan: Plan) -> None:
        parent = self._parents[plan.config_from]
        if plan.config_from not in self._behaviours:
            self._behaviours[plan.config_from] = _behaviour(parent)
        wanted = (self._behaviours[plan.config_from], plan.dtype)
        if self._made_for != wanted:
            self._model = _load(parent.folder, plan.dtype).to(self._device)
            self._places = _places(self._model)
            self._made_for = wanted
        _check_places(plan, self._places)


def _behaviour(parent: Parent) -> str:
    """Return what decides, beside the weights, how a parent's model behaves: its configs."""
    file = parent.folder / "generation_config.json"
    configs = [parent.config, read_json(file) if file.is_file() else {}]
    kept = [{key: config[key] for key in config if key not in INERT} for config in configs]
    return json.dumps(kept, sort_keys=True)


def _load(folder: Any, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), local_files_only=True
        )
    except (ValueError, KeyError, OSError, RuntimeError) as error:  # the last: shapes
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{folder}: transformers cannot load it: {first}") from error
    return model.eval()  # type: ignore[no-untyped-call]


def _places(model: Any) -> dict[str, Tensor]:
    """Return stored tensor name -> view of the live weights that it fills.

    transformers stores some classes under other names than their modules have; its own reverse
    conversion gives the stored names. What it had to copy on the way is no view, and left out.
    """
    from transformers.core_model_loading import revert_weight_conversion

    live = model.state_dict()
    memory = {tensor.untyped_storage().data_ptr() for tensor in live.values()}
    stored = revert_weight_conversion(model, dict(live))
    return {
        name: tensor
        for name, tensor in stored.items()
        if tensor.untyped_storage().data_ptr() in memory
    }


def _check_places(plan: Plan, places: Mapping[str, Tensor]) -> None:
    filled: dict[tuple[int, int], str] = {}
    for step in plan.steps:
        place = places.get(step.tensor)
        if place is None:
            raise CheckpointError(
                f"{step.tensor}: the model class of {plan.config_from} has no such weights, or "
                f"fuses them with others; they cannot be overwritten in place"
            )
        where = (place.data_ptr(), place.numel())
        if place.numel() and filled.setdefault(where, step.tensor) != step.tensor:
            raise CheckpointError(f"{step.tensor} and {filled[where]} share the same live weights")
    unfilled = [
        name
        for name, place in places.items()
        if place.numel() and (place.data_ptr(), place.numel()) not in filled
    ]
    if unfilled:
        raise CheckpointError(
            f"{unfilled[0]}: a weight of the model that no parent stores "
            f"({len(unfilled)} such); the checkpoint does not fit its config"
        )

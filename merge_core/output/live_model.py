"""The live candidate: one transformers model whose weights are overwritten in place.

Nothing else in mergetune writes to it, and nothing goes to disk.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from merge_core.architecture import model_class
from merge_core.architecture.refused_config import said
from merge_core.architecture.stored_names import fix_conversions, stored_form
from merge_core.contract import Tensor
from merge_core.errors import CheckpointError
from merge_core.json_text import read_json
from merge_core.kernels.gradients import Gradients
from merge_core.merge.execute import Execution, Merging
from merge_core.merge.statistics_cache_disk import Saved
from merge_core.numerics import weights_hash
from merge_core.output.live_gradients import collected
from merge_core.output.live_views import check_filled, stored_views
from merge_core.plan.steps import Plan, Step

GENERATION = "generation_config.json"
INERT = ("dtype", "torch_dtype", "transformers_version", "_name_or_path", "architectures")


class Candidate(Merging):
    """The model of one recipe, live on ``device``, in torch's words; see ``Merging``."""

    def __init__(
        self,
        device: str = "cpu",
        *,
        fuse: bool = False,
        room: int | None = None,
        saved: Saved | None = None,
    ) -> None:
        super().__init__(fuse=fuse, room=room, saved=saved)
        self._device = device
        self._model: Any = None
        # How it behaves, its type, and the names of its tensors.
        self._made_for: tuple[str, str, frozenset[str]] | None = None
        self._places: dict[str, Tensor] = {}  # of the stored tensors, by name
        self._held: dict[str, Any] = {}  # what every live tensor was made from
        self._digests: dict[str, int] = {}
        self._built: Plan | None = None  # whose weights are live

    @property
    def model(self) -> Any:
        """The live transformers model, in evaluation mode.

        The same object after every build, as long as ``dtype`` and the results' configs agree.
        """
        assert self._model is not None, "build first"
        return self._model

    def touch(self) -> None:
        """Forget what the live tensors hold: the next build writes all of them."""
        self._held.clear()

    def build(self, plan: Plan) -> str:
        """Overwrite the live model with the plan's weights.

        Returns:
            The ``weights_digest``: 16 hex characters, equal for equal weights.

        Raises:
            NonFiniteError: A merged tensor is not finite. The model then holds a mixture of old
                and new weights, and the next build overwrites all of it.
            CheckpointError: The model class cannot be filled from the parents' tensors.
        """
        self._built = None
        self._prepare(plan)
        with self.execution(plan) as execution:
            wanted = {step.tensor: _origin(plan, execution, step) for step in plan.steps}
            todo = [s for s in plan.steps if self._held.get(s.tensor) != wanted[s.tensor]]
            for i, step in enumerate(todo):
                for near in todo[i : i + 2]:  # this one and the next
                    execution.expect(near)
                self._held.pop(step.tensor, None)  # until it is whole again
                self._fill(execution, step, plan.dtype)
                self._digests[step.tensor] = execution.digests[step.tensor]
                self._held[step.tensor] = wanted[step.tensor]
        self._built = plan
        return weights_hash.combined(self._digests[step.tensor] for step in plan.steps)

    @contextmanager
    def slopes(self) -> Iterator[dict[str, Gradients]]:
        """Collect the gradients of losses by the values of the plan that was built last.

        Inside, every ``backward`` of a loss of ``model`` adds to what is given: stored tensor ->
        gradients by its values; see ``live_gradients``.

        Raises:
            ParameterError: The plan's method has no smooth parameters.
        """
        plan = self._built
        assert plan is not None, "build first"
        execution = Execution(plan, self.known.of(plan.parents))
        with collected(self._model, self._places, plan, execution) as found:
            yield found
        self.known.settle()

    def _fill(self, execution: Execution, step: Step, dtype: str) -> None:
        """Write one tensor to its place, rounded to what a folder of this type would hold.

        A class may keep some weights in float32 whatever its type is.
        """
        import torch

        place = self._places[step.tensor]
        if step.copied or place.dtype == getattr(torch, dtype):
            execution.carry_out(step, place)
        else:
            place.copy_(execution.carry_out(step))

    def _prepare(self, plan: Plan) -> None:
        wanted = (*behaviour(plan), frozenset(step.tensor for step in plan.steps))
        if self._made_for != wanted:
            self._model = _load(plan).to(self._device)
            _untie(self._model, wanted[-1])
            self._held.clear()
            self._places = dict(stored_views(self._model))
            self._made_for = wanted
        check_filled(plan, self._places)


def _origin(plan: Plan, execution: Execution, step: Step) -> tuple[Any, ...]:
    """Return all that decides a step's result."""
    parents = [plan.parents[operand.parent] for operand in step.inputs()]
    return plan.method.name, step, parents, execution.trimmed_with(step)


def behaviour(plan: Plan) -> tuple[str, str]:
    """Return what decides, beside the weights, how a model behaves: its configs, and its type."""
    file = plan.parents[plan.tokens_from].folder / GENERATION
    configs = [plan.config, read_json(file) if file.is_file() else {}]
    kept = [{key: one[key] for key in one if key not in INERT} for one in configs]
    return json.dumps(kept, sort_keys=True), plan.dtype


def _load(plan: Plan) -> Any:
    """Return a live model for a plan, made as transformers makes it from an exported folder.

    What its weights hold does not matter; those of a parent are read, if they fit.
    """
    import torch

    folder = plan.parents[plan.config_from].folder
    found = model_class.checked(plan.config, str(folder))
    try:
        model = model_class.model_class(found).from_pretrained(
            folder,
            config=found,
            dtype=getattr(torch, plan.dtype),
            ignore_mismatched_sizes=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:  # transformers has no class of its own for what it raises
        raise CheckpointError(f"{folder}: transformers cannot load it: {said(error)}") from error
    fix_conversions(model)
    set_generation(model, plan.parents[plan.tokens_from].folder)
    return model.eval()


def _untie(model: Any, tensors: Collection[str]) -> None:
    """Untie what a plan has two tensors for, though the class ties it whatever its config says."""
    import torch

    for one, other in dict(model.all_tied_weights_keys).items():
        ends = [model.get_parameter(name) for name in (one, other)]
        names = [stored_form(model, *x)[0][0] for x in zip((one, other), ends, strict=True)]
        if ends[0] is ends[1] and {*names} <= {*tensors}:
            module, _, last = one.rpartition(".")
            own = torch.nn.Parameter(ends[0].detach().clone(), requires_grad=False)
            setattr(model.get_submodule(module), last, own)
            del model.all_tied_weights_keys[one]


def set_generation(model: Any, folder: Path) -> None:
    """Give a model the generation settings that a folder has, if it has any.

    Raises:
        CheckpointError: transformers cannot read them.
    """
    from transformers import GenerationConfig

    if not model.can_generate() or not (folder / GENERATION).is_file():
        return
    try:
        model.generation_config = GenerationConfig.from_pretrained(folder)
    except Exception as error:  # as above
        raise CheckpointError(f"{folder / GENERATION}: {said(error)}") from error

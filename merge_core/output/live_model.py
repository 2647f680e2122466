"""The live candidate: a transformers model whose weights are overwritten in place, or shared.

A tensor that a plan passes on as its parent has it *is* the parent's: nothing is copied, and layers
that are the same share memory. All else has memory of its own. Nothing else in mergetune writes to
a live model, and nothing goes to disk.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from merge_core.architecture import layer_kinds
from merge_core.architecture.refused_config import said
from merge_core.architecture.skeleton import skeleton
from merge_core.contract import Tensor
from merge_core.errors import CheckpointError
from merge_core.json_text import read_json
from merge_core.kernels.gradients import Gradients
from merge_core.merge.execute import Execution, Merging
from merge_core.merge.statistics_cache_disk import Saved
from merge_core.numerics import weights_hash
from merge_core.output.input_scales import scaled_input
from merge_core.output.live_gradients import collected
from merge_core.output.live_slots import Slots, Spare
from merge_core.output.live_views import check_filled
from merge_core.plan.steps import Plan, Step

GENERATION = "generation_config.json"
INERT = ("dtype", "torch_dtype", "transformers_version", "_name_or_path", "architectures")
MODELS = 16  # without weights: as many as there are depths in a search, about

Key = tuple[str, str, frozenset[str]]  # how a model behaves, its type, and its tensors' names


class _Live:
    """A model, and what its weights were made from."""

    def __init__(self, plan: Plan, device: str, tensors: frozenset[str]) -> None:
        import torch

        dtype, folder = getattr(torch, plan.dtype), plan.parents[plan.config_from].folder
        self.model = skeleton(plan.config, str(folder), dtype, device)
        set_generation(self.model, plan.parents[plan.tokens_from].folder)
        self.slots = Slots(self.model, tensors, dtype, device)
        check_filled(plan, self.slots.places)
        self.held: dict[str, Any] = {}  # stored tensor -> all that decided it
        self.digests: dict[str, int] = {}
        self.hooks: list[Any] = []

    def scale(self, plan: Plan) -> None:
        """Let layers multiply what goes in, as a plan says; those of before no more."""
        for hook in self.hooks:
            hook.remove()
        layers = layer_kinds.modules(self.model, str(plan.stack)) if plan.input_scales else []
        self.hooks = [scaled_input(layers[i], x) for i, x in plan.input_scales.items()]

    def clear(self) -> Spare:
        """Take the weights out; return memory for others."""
        self.held.clear()
        return self.slots.clear()


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
        self._models: OrderedDict[Key, _Live] = OrderedDict()  # the one that is live comes last
        self._shared: WeakValueDictionary[Any, Tensor] = WeakValueDictionary()
        self._built: Plan | None = None  # whose weights are live

    @property
    def model(self) -> Any:
        """The live transformers model, in evaluation mode.

        The same object after every build, as long as ``dtype`` and the results' configs agree;
        another one has no weights any more. Weights that do not learn (``requires_grad``) may be a
        parent's own memory and are not to be written to.
        """
        return self._live.model

    @property
    def digests(self) -> Mapping[str, int]:
        """Stored tensor of the model that was built last -> its ``weights_hash.tensor_digest``."""
        steps = () if self._built is None else self._built.steps
        return {step.tensor: self._live.digests[step.tensor] for step in steps}

    @property
    def _live(self) -> _Live:
        assert self._models, "build first"
        return next(reversed(self._models.values()))

    def touch(self) -> None:
        """Forget what the live tensors hold: the next build makes all of them."""
        if self._models:
            self._live.held.clear()

    def build(self, plan: Plan) -> str:
        """Give the live model the plan's weights.

        Returns:
            The ``weights_digest``: 16 hex characters, equal for equal weights and input scales.

        Raises:
            NonFiniteError: A merged tensor is not finite. The model then holds a mixture of old
                and new weights, and the next build overwrites all of it.
            CheckpointError: The model class cannot be filled from the parents' tensors.
        """
        self._built = None
        live, spare = self._prepare(plan)
        with self.execution(plan) as execution:
            wanted = {step.tensor: _origin(plan, execution, step) for step in plan.steps}
            todo = [s for s in plan.steps if live.held.get(s.tensor) != wanted[s.tensor]]
            rest = []
            for step in todo:
                live.held.pop(step.tensor, None)  # until it is whole again
                if self._share(live, execution, plan, step):
                    self._settle(live, execution, step, wanted)
                else:
                    rest.append(step)
            for i, step in enumerate(rest):
                for near in rest[i : i + 2]:  # this one and the next
                    execution.expect(near)
                self._fill(live, execution, step, plan.dtype, spare)
                self._settle(live, execution, step, wanted)
        self._built = plan
        live.scale(plan)
        digests = [live.digests[step.tensor] for step in plan.steps]
        return weights_hash.combined(digests, plan.input_scales)

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
        execution, live = Execution(plan, self.known.of(plan.parents)), self._live
        with collected(live.model, live.slots.places, plan, execution) as found:
            yield found
        self.known.settle()

    @contextmanager
    def learnable(self, tensors: Collection[str]) -> Iterator[dict[str, Any]]:
        """Give weights of the live model to whoever learns them in place; builds make them anew.

        Args:
            tensors: Stored names; each is a whole weight of the model, such as a router.

        Yields:
            Stored name -> parameter that learns, the model's own memory; no other one learns.
        """
        assert self._built is not None, "build first"
        live = self._live
        for name in tensors:
            live.held.pop(name, None)
        self._built = None
        found = {name: live.slots.learning(live.slots.places[name]) for name in tensors}
        was = {p: p.requires_grad for p in live.model.parameters()}
        ours = {id(parameter) for parameter in found.values()}
        try:
            for parameter in was:
                parameter.requires_grad_(id(parameter) in ours)
            yield found
        finally:
            for parameter, required in was.items():
                parameter.grad = None
                parameter.requires_grad_(required)

    @staticmethod
    def _settle(live: _Live, execution: Execution, step: Step, wanted: Mapping[str, Any]) -> None:
        live.digests[step.tensor] = execution.digests[step.tensor]
        live.held[step.tensor] = wanted[step.tensor]

    def _share(self, live: _Live, execution: Execution, plan: Plan, step: Step) -> bool:
        """Let a live tensor be what a step passes on; tell whether it does, and can be shared.

        Copies in another type or on another device are made where layers may repeat.
        """
        import torch

        place, operand = live.slots.places[step.tensor], execution.passed_on(step)
        if operand is None or place.view is not None or not live.slots.is_parameter(place.live):
            return False
        if live.slots.types[place.live] != getattr(torch, plan.dtype):
            return False  # kept in float32
        parent = plan.parents[operand.parent]
        key = parent, operand.tensor, plan.dtype
        tensor = self._shared.get(key)
        if tensor is None:
            stacks = any(plan.recipe.all_slices())
            tensor = execution.as_stored(step)
            if tensor is None or tensor.device != torch.device(self._device):
                if not stacks:
                    return False
                tensor = execution.kept_copy(step) if tensor is None else tensor
                tensor = tensor.to(self._device)
            self._shared[key] = tensor
        execution.note(step, tensor)
        live.slots.share(place.live, tensor)
        return True

    def _fill(
        self, live: _Live, execution: Execution, step: Step, dtype: str, spare: Spare
    ) -> None:
        """Write one tensor to its place, rounded to what a folder of this type would hold.

        A class may keep some weights in float32 whatever its type is.
        """
        import torch

        place = live.slots.places[step.tensor]
        memory = place.of(live.slots.own(place.live, spare))
        if step.copied or memory.dtype == getattr(torch, dtype):
            execution.carry_out(step, memory)
        else:
            memory.copy_(execution.carry_out(step))

    def _prepare(self, plan: Plan) -> tuple[_Live, Spare]:
        """Let the model that a plan asks for be the live one, made if it is not there.

        Returns:
            It, and the memory that another one had.
        """
        key: Key = (*behaviour(plan), frozenset(step.tensor for step in plan.steps))
        spare = Spare()
        if self._models and key != next(reversed(self._models)):
            spare = self._live.clear()
        if key not in self._models:
            self._models[key] = _Live(plan, self._device, key[-1])
        self._models.move_to_end(key)
        if len(self._models) > MODELS:
            self._models.popitem(last=False)
        return self._live, spare


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

"""The plan of all else, and experts in place of its MLPs -> the plan of a mixture.

It is a passthrough plan: every tensor of the result is one of a parent, scaled. What is merged is a
parent's that merges it, routers are one's that makes or reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from merge_core.architecture import model_class
from merge_core.architecture.edit_config import TIES
from merge_core.architecture.layers import Layers
from merge_core.errors import CheckpointError, ParameterError, ShapeError
from merge_core.methods.registry import method
from merge_core.mixture.classes import MATRICES, OUT, Counts, MixtureClass, chosen
from merge_core.mixture.config import mixture_config, whole_config
from merge_core.mixture.fused import FUSED, fused
from merge_core.mixture.gates import GATES, Gates, Router
from merge_core.mixture.noise import with_noise
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import FLOATS
from merge_core.plan.check_result import check_result
from merge_core.plan.planner import common_dtype
from merge_core.plan.steps import Operand, Plan, Step
from merge_core.recipe.mixture_schema import PROMPTED, Expert, Mixture
from merge_core.recipe.schema import Recipe
from merge_core.tokenizer.parent_tokenizer import has_tokenizer

PASSTHROUGH = "passthrough"
REST = "(dense part)"  # its name in plans where it is merged; references are never written so
BIAS = "self_attn.q_proj.bias"


class AsParent(Protocol):
    """Makes a parent of a plan."""

    def __call__(self, name: str, plan: Plan) -> Parent:
        """Return the parent."""


def plan_mixture(
    recipe: Recipe, dense: Plan, parents: Mapping[str, Parent], as_parent: AsParent
) -> Plan:
    """Plan a recipe with experts.

    Args:
        recipe: A valid recipe with ``moe``; its ``documents`` aside.
        dense: The plan of the same recipe without it.
        parents: All that the recipe refers to, also other documents, by name.
        as_parent: Makes a parent of ``dense``, whose tensors are merged when they are asked for.

    Raises:
        CheckpointError: An expert has not the dense part's layers or MLPs; the class has no place
            for a tensor or a key of the dense part; the base has no tokenizer for the prompts.
        ShapeError: An expert has other sizes.
        ParameterError: No class is made of such models, or has what ``moe`` asks for; the routers
            are to be trained and are not.
    """
    assert recipe.moe is not None
    merged = as_parent(REST, dense)
    base = _reader(recipe, parents, merged)
    _check_gates(recipe.moe, dense, base)
    made = _Mixing(recipe, recipe.moe, dense, merged, base, parents)
    return made.plan()


def _reader(recipe: Recipe, parents: Mapping[str, Parent], merged: Parent) -> Parent:
    """Return what reads the prompts: the base model, or the dense part where it has other layers.

    Not the merge of both: it would have to read them again for every candidate of a study.
    """
    if recipe.slices or recipe.modules:
        return merged
    return parents[recipe.base_model or recipe.models[0].model]


def _check_gates(mixture: Mixture, dense: Plan, base: Parent) -> None:
    if mixture.gate_mode == "trained" and mixture.gates is None:
        raise ParameterError(
            "moe.gate_mode: trained needs moe.gates, the file that a study of this mixture writes; "
            "run a study, or choose another gate_mode"
        )
    if mixture.gate_mode in PROMPTED and dense.input_scales:
        raise ParameterError(
            f"moe.gate_mode: {mixture.gate_mode} reads prompts with the weights alone, and the "
            f"slices have input_scale beside them; choose random and train, or remove input_scale"
        )
    if mixture.gate_mode in PROMPTED and not has_tokenizer(base.folder):
        raise CheckpointError(
            f"moe: {base.where} has no tokenizer, which gate_mode: {mixture.gate_mode} needs for "
            f"the prompts; save the model's tokenizer there, or choose another gate_mode"
        )


@dataclass(frozen=True)
class _Mixing:
    recipe: Recipe
    mixture: Mixture
    dense: Plan
    merged: Parent  # what the dense plan makes
    base: Parent  # what reads the prompts
    parents: Mapping[str, Parent]

    def plan(self) -> Plan:
        where, mixture = self.dense.config_from, self.mixture
        found = chosen(mixture, str(self.dense.config.get("model_type")), where)
        stack = self._stack()
        kept = self._kept(stack)
        sizes = [self._size(expert, stack) for expert in mixture.experts]
        shared = [self._size(expert, stack) for expert in mixture.shared_experts]
        self._check_sizes([*sizes, *(() if found.shared_gate else shared)])
        counts = Counts(
            stack.count,
            len(sizes),
            mixture.experts_per_token,
            len(shared),
            sizes[0],
            shared[0] if shared else 0,
            mixture.dense_layers,
        )
        biased = any(step.tensor.endswith(BIAS) for step in self.dense.steps)
        config = mixture_config(self.dense.config, found, counts, biased, where)
        if not found.ties and config.get(TIES):
            kept, config = self._with_heads(kept), {**config, TIES: False}
        _check_places(kept, config, found, where)
        steps, experts = self._experts(found, stack)
        if found.fused:
            steps, experts = self._fused(found, stack, steps, experts)
        gates = self._gates(found, stack)
        routers = [_passed(name, x.shape, GATES, name) for name, x in gates.tensors.items()]
        parents = {**self.parents, **self.dense.parents, **experts, REST: self.merged}
        every = [*kept, *steps, *routers]
        check_result(config, where, {step.tensor: step.shape for step in every})
        read = [x for step in (*kept, *steps) for x in step.inputs()]
        return replace(
            self.dense,
            recipe=self.recipe,
            parents={**parents, GATES: gates},
            method=method(PASSTHROUGH),
            config=config,
            dtype=self.recipe.out_dtype or self.recipe.dtype or common_dtype(read, parents),
            steps=tuple(sorted(every, key=lambda step: step.tensor)),
        )

    def _stack(self) -> Layers:
        """Return the layers of the result."""
        (stack,) = self.merged.architecture.stacks
        wrong = [number for number in self.mixture.dense_layers if number >= stack.count]
        if wrong:
            raise ParameterError(
                f"moe.dense_layers: expected layers from 0 to {stack.count - 1}, got {wrong[0]}"
            )
        if len(self.mixture.dense_layers) == stack.count:
            raise ParameterError(
                f"moe.dense_layers: expected fewer than all {stack.count} layers; without experts "
                f"it is no mixture, remove moe"
            )
        return stack

    def _kept(self, stack: Layers) -> list[Step]:
        """Return the steps of all but the MLPs that experts replace."""
        kept = [
            step
            for step in self.dense.steps
            if (layer := stack.index(step.tensor)) is None
            or layer in self.mixture.dense_layers
            or not step.tensor.startswith(f"{stack.start(layer)}mlp.")
        ]
        if self.dense.method.name == PASSTHROUGH:
            return kept  # as they are, so that they stay references to the parents' tensors
        return [
            replace(_passed(step.tensor, step.shape, REST, step.tensor), copied=step.copied)
            for step in kept
        ]

    def _with_heads(self, kept: Sequence[Step]) -> list[Step]:
        """Return steps with those of tensors that the dense class ties to others."""
        by_name = {step.tensor: step for step in kept}
        tied = self.merged.architecture.tied.items()
        twins = [replace(by_name[source], tensor=name) for name, source in tied]
        return [*kept, *(step for step in twins if step.tensor not in by_name)]

    def _size(self, expert: Expert, stack: Layers) -> int:
        """Return the rows of an expert's matrices, if its MLPs can stand in the result's layers."""
        parent, name = self.parents[expert.source_model], expert.source_model
        config, own = self.dense.config, parent.config
        for key in ("model_type", "hidden_size", "hidden_act"):
            facts = _fact(config, key), _fact(own, key)
            if facts[0] != facts[1]:
                error = ShapeError if key == "hidden_size" else CheckpointError
                raise error(
                    f"moe.experts: {key}: {self.dense.config_from} has {facts[0]}, the expert "
                    f"{name} {facts[1]}; experts must be tuned from one model"
                )
        layers = {x.stack: x.count for x in parent.architecture.stacks}.get(stack.stack)
        if layers != stack.count:
            raise CheckpointError(
                f"moe.experts: {name} has {layers} layers, the result {stack.count}; stack it in a "
                f"document of its own"
            )
        _check_mlps(name, parent, stack)
        matrix = f"{stack.start(0)}mlp.{OUT}.weight"
        return parent.tensors[matrix].shape[1]

    def _check_sizes(self, sizes: Sequence[int]) -> None:
        if len({*sizes}) > 1:
            every = (*self.mixture.experts, *self.mixture.shared_experts)
            said = {f"{x.source_model} {n}" for x, n in zip(every, sizes, strict=False)}
            raise ShapeError(
                f"moe.experts: intermediate_size: expected one size, got {', '.join(sorted(said))}"
            )

    def _experts(self, found: MixtureClass, stack: Layers) -> tuple[list[Step], dict[str, Parent]]:
        """Return the steps of all experts, and the parents that add noise."""
        steps: list[Step] = []
        noisy: dict[str, Parent] = {}
        for expert, pattern, number in _numbered(self.mixture, found):
            parent, name = self.parents[expert.source_model], expert.source_model
            places = {
                f"{stack.start(layer)}mlp.{matrix}.weight": stack.start(layer)
                + pattern.format(expert=number, matrix=found.matrix(matrix))
                for layer in range(stack.count)
                if layer not in self.mixture.dense_layers
                for matrix in MATRICES
            }
            if expert.noise_scale:
                name = f"({name} with noise, {pattern.format(expert=number, matrix='*')})"
                noisy[name] = with_noise(parent, expert.noise_scale, self.recipe.seed, places)
            for tensor, place in places.items():
                scale = expert.residual_scale if f".{OUT}." in tensor else 1.0
                shape = parent.tensors[tensor].shape
                steps.append(_passed(place, shape, name, tensor, scale))
        return steps, noisy

    def _fused(
        self, found: MixtureClass, stack: Layers, steps: list[Step], experts: dict[str, Parent]
    ) -> tuple[list[Step], dict[str, Parent]]:
        """Return the steps of a class that fuses experts' matrices, and the parent that does."""
        by_name = {step.tensor: step for step in steps}
        kinds = [(found.fused, found.expert, len(self.mixture.experts))]
        if self.mixture.shared_experts:
            kinds.append((found.fused_shared, found.shared_expert, 1))
        pieces = {
            stack.start(layer) + name: [
                [by_name[stack.start(layer) + pattern.format(expert=i, matrix=x)] for x in matrices]
                for i in range(count)
            ]
            for layer in range(stack.count)
            for together, pattern, count in kinds
            for name, matrices in together.items()
        }
        stacked = frozenset(name for name in pieces if name.endswith(tuple(found.fused)))
        like = self.parents[self.mixture.experts[0].source_model]
        parent = fused(pieces, stacked, {**self.parents, **experts}, like)
        made = [_passed(name, x.shape, FUSED, name) for name, x in parent.tensors.items()]
        return made, {**experts, FUSED: parent}

    def _gates(self, found: MixtureClass, stack: Layers) -> Gates:
        mixture, routers, zeros = self.mixture, {}, {}
        for layer in range(stack.count):
            if layer in mixture.dense_layers:
                continue
            start = stack.start(layer)
            routers[start + found.router] = Router(layer, mixture.experts, mixture.temperature)
            if found.shared_gate:
                routers[start + found.shared_gate] = Router(layer, mixture.shared_experts, 1.0)
            if found.zeros:
                zeros[start + found.zeros] = found.zeros_shape(len(mixture.experts))
        file = self.parents[mixture.gates] if mixture.gates else None
        hidden = int(_fact(self.dense.config, "hidden_size"))
        seed = self.recipe.seed
        return Gates(mixture, seed, self.base, file, routers, zeros, hidden, stack.count)


def _check_mlps(name: str, parent: Parent, stack: Layers) -> None:
    """Check that every layer of a model has a gated MLP of floats without biases."""
    starts = [f"{stack.start(layer)}mlp." for layer in range(stack.count)]
    wanted = {f"{start}{matrix}.weight" for start in starts for matrix in MATRICES}
    there = {tensor for tensor in parent.tensors if tensor.startswith(tuple(starts))}
    for odd in sorted(there ^ wanted):
        raise CheckpointError(
            f"moe.experts: {name} {'has' if odd in there else 'lacks'} {odd}; experts are MLPs of "
            f"{', '.join(MATRICES)} without biases"
        )
    for tensor in sorted(wanted):
        if parent.tensors[tensor].dtype not in FLOATS:
            raise CheckpointError(
                f"moe.experts: {name} has {tensor} in {parent.tensors[tensor].dtype}, which is "
                f"quantized; take the model whose weights these were, or one saved dequantized"
            )


def _numbered(mixture: Mixture, found: MixtureClass) -> Iterator[tuple[Expert, str, int]]:
    """Yield every expert with the pattern of its tensors' names and its number."""
    for i, expert in enumerate(mixture.experts):
        yield expert, found.expert, i
    for i, expert in enumerate(mixture.shared_experts):
        yield expert, found.shared_expert, i


def _passed(
    tensor: str, shape: tuple[int, ...], parent: str, source: str, scale: float = 1.0
) -> Step:
    operand = Operand(parent, source)
    return Step(tensor, shape, (operand,), values=({"scale": scale},), keys=(0,))


def _fact(config: Mapping[str, Any], key: str) -> Any:
    """Return what a config says of a key, or what its class takes for granted."""
    return whole_config(config).get(key)


def _check_places(
    kept: Sequence[Step], config: Mapping[str, Any], found: MixtureClass, where: str
) -> None:
    """Check that the class has every tensor of the dense part that experts do not replace."""
    facts = model_class.read(config, where, None)
    lost = [step.tensor for step in kept if step.tensor not in facts.shapes]
    if lost:
        raise CheckpointError(
            f"{lost[0]}: {where} has it, {found.name} has no such tensor ({len(lost)} such); "
            f"choose another moe.architecture, or another model"
        )

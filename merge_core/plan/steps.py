"""What is to be computed for every tensor of the result: data, read by whoever carries it out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from merge_core.contract import Method, Value
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import WIDTHS
from merge_core.recipe.schema import Recipe
from merge_core.tokenizer.vocabulary import Vocabulary

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float32"}
# How names of a batch norm's buffers end; the counter is of use in trainings only.
MEAN, VARIANCE, COUNTER = ".running_mean", ".running_var", ".num_batches_tracked"


@dataclass(frozen=True)
class Operand:
    """One input of one output tensor."""

    parent: str  # reference of the model
    tensor: str  # its name there


@dataclass(frozen=True)
class Step:
    """One output tensor."""

    tensor: str  # its name in the result
    shape: tuple[int, ...]
    operands: tuple[Operand, ...]  # what goes in beside the base, in recipe order
    base: Operand | None = None  # what task vectors are measured from
    values: tuple[Mapping[str, Value], ...] = ()  # the model parameters, one mapping per operand
    shared: Mapping[str, Value] = field(default_factory=dict)  # the shared parameters
    keys: tuple[int, ...] = ()  # of masks, one per operand; zeros where nothing is drawn
    copied: bool = False  # whole numbers, which must be equal in all parents; no parameters

    def inputs(self) -> tuple[Operand, ...]:
        """Return all that is read: the base first, if there is one."""
        return self.operands if self.base is None else (self.base, *self.operands)

    @property
    def entries(self) -> int:
        """Numbers that the result has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Plan:
    """All steps of one recipe."""

    recipe: Recipe
    opened: Mapping[str, Parent]  # the parents that were opened for it, by reference
    parents: Mapping[str, Parent]  # what steps read: these, re-indexed ones, other documents
    method: Method
    config_from: str  # reference of the parent that gives the config
    # Reference of the parent whose token ids the result has, or begins with; it gives the
    # generation config, and the tokenizer where ``vocabulary`` is None.
    tokens_from: str
    config: Mapping[str, Any]  # the result's ``config.json``, but for its type
    dtype: str  # torch's name of the type that is written, such as ``bfloat16``
    steps: tuple[Step, ...]  # in the order of tensor names
    # Stored tensor, after its parent's name where only slices leave it out -> the reason.
    dropped: Mapping[str, str]
    vocabulary: Vocabulary | None = None  # the result's tokenizer where the recipe has one
    # Layer of the result -> what its input, the hidden state, is multiplied by, where that is not 1
    input_scales: Mapping[int, float] = field(default_factory=dict)
    stack: str | None = None  # what stands before these layers' numbers, as ``model.layers``

    def lost(self) -> str | None:
        """Return a line on parents' tensors that are in no class or no file, if there are any.

        Twins of tied tensors, buffers that classes compute, and layers in no slice are not told.
        """
        usual = ("tied to ", "not loaded", "its layer is", "other models'")
        found = {name: why for name, why in self.dropped.items() if not why.startswith(usual)}
        if not found:
            return None
        name, why = min(found.items())
        return f"{name}: left out: {why} ({len(found)} such, in `dropped` of mergetune.json)"

    def running_statistics(self) -> str | None:
        """Return a line on running statistics of batch norms, if such are merged."""
        found = [x.tensor for x in self.steps if x.tensor.endswith((MEAN, VARIANCE))]
        if not found or all(len(step.inputs()) < 2 for step in self.steps):
            return None
        return (
            f"{found[0]}: statistics of batch norms are merged as weights are ({len(found)} such), "
            f"which is not what the merged model would measure; let it read some batches in "
            f"training mode, without a step"
        )

    def head_of_another(self) -> str | None:
        """Return a line on a tied head that is not that of the model whose layers are the last.

        Of tied models the first slice gives embedding and head; mergekit's stacks are like that.
        """
        last = [one.sources[0].model for one in self.recipe.slices[-1:]]
        there = {step.tensor: step for step in self.steps}
        for head, source in self.parents[self.config_from].architecture.tied.items():
            if not last or head in there or source not in there:
                continue
            given = there[source].inputs()[0].parent
            if last[0] != given and source in self.parents[last[0]].tensors:
                return (
                    f"{head}: tied to {source} of {given}, the first slice's model, though the "
                    f"last layers are those of {last[0]}; end with a slice of {given} if that "
                    f"matters"
                )
        return None

    def stored_type(self, step: Step) -> str:
        """Return the type of a step's result, in the words of safetensors."""
        if not step.copied:
            return next(word for word, name in DTYPES.items() if name == self.dtype)
        first = step.inputs()[0]
        return self.parents[first.parent].tensors[first.tensor].dtype

    def bytes_of(self, step: Step) -> int:
        """Return the bytes of a step's result."""
        return step.entries * WIDTHS[self.stored_type(step)]

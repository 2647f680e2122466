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


@dataclass(frozen=True)
class Operand:
    """One input of one output tensor.

    Args:
        parent: Reference of the model.
        tensor: Its name there.
    """

    parent: str
    tensor: str


@dataclass(frozen=True)
class Step:
    """One output tensor.

    Args:
        tensor: Its name in the result.
        shape: Its shape.
        operands: What goes in beside the base, in recipe order.
        base: What task vectors are measured from, or None.
        values: The model parameters, one mapping per operand; empty for a copy.
        shared: The shared parameters.
        keys: Mask keys, one per operand; zeros where nothing is drawn.
        copied: The parents hold whole numbers here: they must be equal, and are copied.
    """

    tensor: str
    shape: tuple[int, ...]
    operands: tuple[Operand, ...]
    base: Operand | None = None
    values: tuple[Mapping[str, Value], ...] = ()
    shared: Mapping[str, Value] = field(default_factory=dict)
    keys: tuple[int, ...] = ()
    copied: bool = False

    def inputs(self) -> tuple[Operand, ...]:
        """Return all that is read: the base first, if there is one."""
        return self.operands if self.base is None else (self.base, *self.operands)


@dataclass(frozen=True)
class Plan:
    """All steps of one recipe.

    Args:
        recipe: What is planned.
        opened: The parents that were opened for it, by reference.
        parents: What its steps read: parents, those with a new vocabulary, other documents.
        method: Its method.
        config_from: Reference of the parent that gives the config.
        tokens_from: Reference of the parent whose token ids the result has, or begins with; it
            gives the generation config, and the tokenizer where ``vocabulary`` is None.
        config: The result's ``config.json``, but for its type.
        dtype: torch's name of the type that is written, such as ``bfloat16``.
        steps: In the order of tensor names.
        dropped: Stored tensor, after its parent's name where only slices leave it out -> why it is
            not in the result.
        vocabulary: The result's tokenizer where the recipe has one.
    """

    recipe: Recipe
    opened: Mapping[str, Parent]
    parents: Mapping[str, Parent]
    method: Method
    config_from: str
    tokens_from: str
    config: Mapping[str, Any]
    dtype: str
    steps: tuple[Step, ...]
    dropped: Mapping[str, str]
    vocabulary: Vocabulary | None = None

    def stored_type(self, step: Step) -> str:
        """Return the type of a step's result, in the words of safetensors."""
        if not step.copied:
            return next(word for word, name in DTYPES.items() if name == self.dtype)
        first = step.inputs()[0]
        return self.parents[first.parent].tensors[first.tensor].dtype

    def bytes_of(self, step: Step) -> int:
        """Return the bytes of a step's result."""
        return math.prod(step.shape) * WIDTHS[self.stored_type(step)]

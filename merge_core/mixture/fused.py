"""Experts of a class that stores the matrices of all of them as one tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from merge_core.contract import Tensor
from merge_core.parents.protocol import Changed, Parent
from merge_core.parents.weight_files import TensorInfo
from merge_core.plan.steps import Step

FUSED = "(fused experts)"  # the parent's name in plans; references are never written so

# Stored tensor of the result -> for each expert the steps whose results stand in it, from the top.
Pieces = Mapping[str, Sequence[Sequence[Step]]]


def fused(
    pieces: Pieces, stacked: frozenset[str], parents: Mapping[str, Parent], like: Parent
) -> Parent:
    """Return the parent of fused experts; the same object for the same pieces. See ``Fused``."""
    steps = [step for experts in pieces.values() for one in experts for step in one]
    used = {x.parent: parents[x.parent] for step in steps for x in step.operands}
    key = frozenset({FUSED})
    kept = like.views.get(key)
    if not isinstance(kept, Fused) or not kept.made_of(pieces, used):
        kept = like.views[key] = Fused(pieces, stacked, used, like)
    return kept


class Fused(Changed):
    """A parent that puts experts' matrices together: below each other, then expert by expert.

    Args:
        pieces: What stands where; a single expert's are a matrix, several experts' a stack of them.
        stacked: The tensors that are stacks even of a single expert.
        parents: What the pieces are of, by the names in their steps.
        like: One of them, for the facts of its class.
    """

    def __init__(
        self, pieces: Pieces, stacked: frozenset[str], parents: Mapping[str, Parent], like: Parent
    ) -> None:
        super().__init__(like)
        self.reference, self.located, self.left_out = FUSED, None, {}
        self._pieces, self._stacked, self._parents = pieces, stacked, parents
        self.tensors = {name: self._info(name) for name in pieces}

    def made_of(self, pieces: Pieces, parents: Mapping[str, Parent]) -> bool:
        """Return whether it is made of these pieces of these very parents."""
        return self._pieces == pieces and self._parents == parents

    def _info(self, name: str) -> TensorInfo:
        experts = self._pieces[name]
        rows = sum(step.shape[0] for step in experts[0])
        matrix = (rows, *experts[0][0].shape[1:])
        shape = (len(experts), *matrix) if name in self._stacked else matrix
        reads = [operand for steps in experts for step in steps for operand in step.operands]
        types = {self._parents[x.parent].tensors[x.tensor].dtype for x in reads}
        return TensorInfo("", shape, types.pop() if len(types) == 1 else "F32")

    def tensor(self, name: str) -> Tensor:
        """Return a tensor in float32."""
        import torch

        made = [torch.cat([self._piece(step) for step in steps]) for steps in self._pieces[name]]
        return torch.stack(made) if name in self._stacked else made[0]

    def _piece(self, step: Step) -> Tensor:
        (operand,), (values,) = step.operands, step.values
        found = self._parents[operand.parent].tensor(operand.tensor).float()
        scale = float(values["scale"])
        return found if scale == 1 else found * scale

    def makes(self, name: str) -> bool:
        """See ``Parent``."""
        return True

    def expect(self, name: str) -> None:
        """See ``Parent``."""
        for steps in self._pieces[name]:
            for step in steps:
                for operand in step.operands:
                    self._parents[operand.parent].expect(operand.tensor)

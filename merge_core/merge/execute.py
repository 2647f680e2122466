"""One step of a plan, carried out: parents' tensors in, the tensor that is written out.

Live candidates and exported folders both come from here, so they are the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from merge_core.contract import Inputs, Tensor
from merge_core.errors import CheckpointError, MethodError, NonFiniteError, ParameterError
from merge_core.kernels import run
from merge_core.merge.statistics_cache import Known
from merge_core.merge.statistics_cache_disk import Saved
from merge_core.merge.whole_vectors import WholeVectors
from merge_core.numerics import weights_hash
from merge_core.parents.protocol import Parent
from merge_core.plan.steps import COUNTER, DTYPES, VARIANCE, Operand, Plan, Step

PRODUCTS = 16  # bytes: where matrices begin whose products with one row round alike


class Merging:
    """Merges one plan after another, and keeps what the next one needs again.

    Args:
        fuse: Merge by fused kernels: the same bits, faster once they are compiled.
        room: Bytes for what is computed once, where merges run; None: see ``Known``.
        saved: Keeps it on disk, too.
    """

    def __init__(
        self, *, fuse: bool = False, room: int | None = None, saved: Saved | None = None
    ) -> None:
        self._fuse = fuse
        self.path = "fused" if fuse else "blocked"
        self.known = Known(room, saved)

    @contextmanager
    def execution(
        self, plan: Plan, factors: Mapping[str, float] | None = None
    ) -> Iterator[Execution]:
        """Give a plan's execution; memory that computing has left is given back behind it."""
        import torch

        with torch.no_grad():
            known = self.known.of(plan.parents)
            yield Execution(plan, known, fuse=self._fuse, factors=factors)
        self.known.settle()


class Merged(Parent):
    """A parent whose tensors a plan makes when they are asked for.

    ``part``: it is a part of the plan that it is a parent of, whose parents have the same names
    there, so what is known of these is known for both.
    """

    plan: Plan
    execution: Execution
    part: bool = False


class Execution:
    """Carries out the steps of one plan, in any order.

    Args:
        plan: Its parents stay open.
        known: Keeps what other plans on the same parents need again; None keeps nothing.
        fuse: Use fused kernels: the same bits, faster once they are compiled.
        factors: Tensor of the result -> what it is multiplied by, after it was rounded; its digest
            stays the one of before.
        passing: The parents are read for this plan alone, so what was read is let go at once.
        device: Where to merge, in torch's words, a tensor at a time; None: where parents' tensors
            are.
    """

    def __init__(
        self,
        plan: Plan,
        known: Known | None = None,
        *,
        fuse: bool = False,
        factors: Mapping[str, float] | None = None,
        passing: bool = False,
        device: str | None = None,
    ) -> None:
        self._plan, self._known, self._fuse = plan, known, fuse
        self._factors, self._passing, self._device = factors or {}, passing, device
        self._whole = WholeVectors(plan.steps, self._read, known, self.let_go)
        self.digests: dict[str, int] = {}  # of the tensors that were made
        for parent in plan.parents.values():
            if isinstance(parent, Merged) and (parent.part or passing or device):
                how: dict[str, Any] = {"fuse": fuse, "passing": passing, "device": device}
                parent.execution = Execution(parent.plan, known, **how)

    def carry_out(self, step: Step, out: Tensor | None = None) -> Tensor:
        """Compute one output tensor in float32 and round it once.

        Args:
            step: One of the plan's.
            out: Where to write it: ``step.shape``, of the type that is returned; None makes one.

        Returns:
            ``step.shape``, of type ``plan.dtype``, or as stored where the step copies.

        Raises:
            NonFiniteError: The result has NaN or infinite entries, or is a variance below 0.
            ParameterError: The method refuses the parameters it has for this tensor.
            MethodError: The method gives something else than a tensor of this shape.
            CheckpointError: Whole-number tensors differ between the parents.
        """
        import torch

        if step.copied:
            found = self._copied(step)
            self.digests[step.tensor] = weights_hash.tensor_digest(step.tensor, found)
            return found if out is None else out.copy_(found)
        inputs = self.inputs(step)
        name, dtype = self._plan.method.name, getattr(torch, self._plan.dtype)
        try:
            merged = run.merge(self._plan.method, inputs, out, dtype=dtype, fuse=self._fuse)
        except (ParameterError, MethodError) as error:
            raise type(error)(f"{step.tensor}: {error}") from error
        except NonFiniteError as error:
            raise NonFiniteError(f"{step.tensor}: {name}: {error}") from error
        self._note(step, weights_hash.digest_and_finiteness(step.tensor, merged, fuse=self._fuse))
        if step.tensor.endswith(VARIANCE) and bool((merged < 0).any()):
            raise NonFiniteError(
                f"{step.tensor}: {name!r}: a variance is below 0, {float(merged.min()):g}, and has "
                f"no root; choose weights within 0 and 1, or merge by linear"
            )
        return self._scaled(step, merged) if step.tensor in self._factors else merged

    def _scaled(self, step: Step, merged: Tensor) -> Tensor:
        factor = self._factors[step.tensor]
        scaled = merged * factor
        if not bool(scaled.isfinite().all()):
            raise NonFiniteError(
                f"{step.tensor}: not finite in {self._plan.dtype} times {factor:g}, the "
                f"input_scale of the first layer; choose a smaller one"
            )
        return scaled

    def _note(self, step: Step, found: tuple[int, bool]) -> None:
        """Keep a result's digest.

        Raises:
            NonFiniteError: It is not finite.
        """
        self.digests[step.tensor], finite = found
        if not finite:
            raise NonFiniteError(
                f"{step.tensor}: the merge by {self._plan.method.name!r} is not finite in "
                f"{self._plan.dtype}; parameters {[dict(v) for v in step.values]} "
                f"{dict(step.shared)}"
            )

    def passed_on(self, step: Step) -> Operand | None:
        """Return the parent's tensor that a step gives as it is, but for its type; None: it merges.

        What a parent makes anew whenever it is asked is none.
        """
        passes = self._plan.method.passes_on
        if step.copied or passes is None or len(step.inputs()) != 1 or step.base is not None:
            return None
        (operand,) = step.operands
        made = self._plan.parents[operand.parent].makes(operand.tensor)
        return operand if not made and passes(step.values[0]) else None

    def as_stored(self, step: Step) -> Tensor | None:
        """Return the parent's own tensor that a step passes on; not to be written to.

        None where only a copy can stand for it: its type is another one, or it is float32 and
        begins where a CPU rounds a product of one row otherwise than in memory of torch's.
        """
        (operand,) = step.operands
        parent, plan = self._plan.parents[operand.parent], self._plan
        if DTYPES.get(parent.tensors[operand.tensor].dtype) != plan.dtype:
            return None
        found = parent.tensor(operand.tensor)
        if str(found.dtype).removeprefix("torch.") != plan.dtype:  # float64
            return None
        odd = plan.dtype == "float32" and found.device.type == "cpu" and found.data_ptr() % PRODUCTS
        return None if odd else found

    def kept_copy(self, step: Step) -> Tensor:
        """Return a copy of what a step passes on, kept as long as there is room; as above."""
        read = partial(self.carry_out, step)
        if self._known is None:
            return read()
        name = ("passed on", step.operands, self._plan.dtype)
        kept: Tensor = self._known.get(name, read, cheap=True)
        return kept

    def note(self, step: Step, tensor: Tensor) -> None:
        """Note the digest of a tensor that a step passes on, which is computed once for each name.

        Raises:
            NonFiniteError: It is not finite.
        """
        look = partial(weights_hash.digest_and_finiteness, step.tensor, tensor, fuse=self._fuse)
        (operand,) = step.operands
        name = ("digest", operand, step.tensor, self._plan.dtype)
        self._note(step, look() if self._known is None else self._known.get(name, look))

    def inputs(self, step: Step) -> Inputs:
        """Return what the method gets for a step that is not copied."""
        models = [self._read(operand) for operand in step.operands]
        base = None if step.base is None else self._read(step.base)
        once = None if self._known is None else partial(_once, self._known, step)
        cuts = self._whole.cuts(step)
        return Inputs(models, base, step.values, step.shared, step.keys, cuts, once)

    def expect(self, step: Step) -> None:
        """Let the parents know that a step is carried out soon."""
        for operand in step.inputs():
            self._plan.parents[operand.parent].expect(operand.tensor)

    def let_go(self) -> None:
        """Take what parents' files were read of out of memory, where nobody reads it again."""
        if self._passing:
            for parent in self._plan.opened.values():
                parent.let_go()

    def check_copies(self) -> None:
        """Compare all tensors that are to be equal before anything is made; see ``carry_out``."""
        for step in self._plan.steps:
            if step.copied:
                self._copied(step)
                self.let_go()

    def _read(self, operand: Operand) -> Tensor:
        parent = self._plan.parents[operand.parent]
        read = partial(self._there, parent, operand.tensor)
        part = isinstance(parent, Merged) and parent.part  # each of its tensors is read once
        if self._known is None or part or not parent.makes(operand.tensor):
            return read()
        made: Tensor = self._known.get(("made", operand), read, cheap=True)
        return made

    def _there(self, parent: Parent, name: str) -> Tensor:
        found = parent.tensor(name)
        return found if self._device is None else found.to(self._device)

    def _copied(self, step: Step) -> Tensor:
        first, *others = (self._read(operand) for operand in step.inputs())
        for other in () if step.tensor.endswith(COUNTER) else others:
            if not bool(first.equal(other)):
                raise CheckpointError(
                    f"{step.tensor}: the parents' whole-number tensors differ and cannot be merged"
                )
        return first

    def trimmed_with(self, step: Step) -> str:
        """Return a digest of all tensors that are trimmed together with this one, or nothing."""
        return self._whole.digest if step.shared.get("trim") == "global" else ""


def _once(
    known: Known,
    step: Step,
    what: Any,
    models: Sequence[int],
    compute: Callable[[], Any],
    version: Any,
) -> Any:
    """Remember a quantity of one step: it is named by the tensors that it is of."""
    tensors = (step.base, *(step.operands[i] for i in models))
    return known.of_tensors(what, tensors, compute, version)

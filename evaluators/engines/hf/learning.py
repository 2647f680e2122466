"""Losses of targets and their gradients, batch by batch, on the live model.

A batch's nats are differentiable; the slope of the sum of losses by each of them is known as a
number, so one backward pass gives what the batch adds to the parameters' gradients. Batches are
made of the targets' token ids alone, and come in one order.

    one part (rows of a target) too large    its nats first, without a graph; then row by row
    one row too large                        its layers keep nothing and are run again

What fits an accelerator is tried with a backward pass that reaches no parameter but the first: a
real one that ends half way has changed gradients, and cannot be tried again.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from evaluators.engines.encoding import TokenIds
from evaluators.engines.hf.activations import Load, Room, layers_run_again
from evaluators.engines.hf.graph_forward import GraphForward
from evaluators.engines.hf.wanted import Numbers, Part, parts_of
from evaluators.target import Target
from merge_core.errors import EvaluationError, NonFiniteError, ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BLOCK = 64  # tokens that contexts have in common to be neighbours


class Learning:
    """See ``protocol.Engine.losses`` and ``backward``.

    Args:
        model: In evaluation mode, where it is to run.
        ids: Encodes texts.
        max_length: Places that the model has.
        most_rows: Contexts in a batch, at most.
        limit: Tokens up to which a sequence may be read with others and in steps; None: any.
        in_steps: Tells whether the model's cache can be read on from.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        ids: TokenIds,
        *,
        max_length: int,
        most_rows: int,
        limit: int | None,
        in_steps: Callable[[], bool],
    ) -> None:
        self._model = model
        self._ids = ids
        self._limit = limit
        self._in_steps = in_steps
        self._forward = GraphForward(model, max_length)
        self._room = Room(model, most_rows)

    def run(self, targets: Sequence[Target], weights: Sequence[float] | None) -> list[float]:
        """Return the losses; with weights, add the gradient of their weighted sum.

        Raises:
            NonFiniteError: A loss is NaN or infinite.
            ParameterError: There is not one finite weight per target, or the model is quantised.
            EvaluationError: One row alone does not fit the memory.
        """
        if weights is not None:
            _check(self._model, targets, weights)
        if not targets:
            return []
        self._room.measure()
        shared = self._in_steps()
        parts = [
            part
            for i, target in enumerate(targets)
            for part in parts_of(i, target, self._ids, shared=shared)
        ]
        losses = [0.0] * len(targets)
        waiting = deque(_in_order(parts, shared))
        while waiting:
            batch, load = self._next(waiting, shared)
            if len(batch) == 1 and _several(batch[0]) and not self._whole(load):
                waiting.extendleft(reversed(self._apart(batch[0])))
            elif not self._step(batch, load, shared, weights, losses):
                waiting.extendleft(reversed(batch))
        return losses

    def _next(self, waiting: deque[Part], shared: bool) -> tuple[list[Part], Load]:
        """Take what is read together next: as much as fits, where that costs no more than apart."""
        batch = [waiting.popleft()]
        load = Load().with_rows(batch[0].rows, shared)
        while waiting and self._whole(load):
            alone = Load().with_rows(waiting[0].rows, shared)
            joined = load.with_rows(waiting[0].rows, shared)
            dearer = joined.tokens() - load.tokens() > 1.5 * alone.tokens() + _BLOCK
            if dearer or not (self._room.fits(joined) and self._whole(alone)):
                break
            batch.append(waiting.popleft())
            load = joined
        return batch, load

    def _whole(self, load: Load) -> bool:
        """Tell whether rows may be read with others."""
        return self._room.holds(load) and (self._limit is None or load.longest <= self._limit)

    def _apart(self, part: Part) -> list[Part]:
        """Return the rows of a part one by one, with slopes from nats that need no graph."""
        nats = []
        with torch.no_grad():
            for row in part.rows:
                lone = [type(row)(row.context, (x,)) for x in row.continuations]
                nats += [self._forward.nats([one], shared=False) for one in lone]
        return part.apart(_numbers(torch.cat(nats)))

    def _step(
        self,
        batch: Sequence[Part],
        load: Load,
        shared: bool,
        weights: Sequence[float] | None,
        losses: list[float],
    ) -> bool:
        """Add a batch's losses and gradients; tell whether its memory was enough."""
        with torch.set_grad_enabled(weights is not None):
            try:
                nats = self._nats(load, shared)
                self._try(nats, load)
            except torch.OutOfMemoryError as error:
                if not self._room.holds(load):
                    raise EvaluationError(_no_room(load)) from error
                self._room.shrink(load)
                return False
            slopes = _slopes(batch, _numbers(nats), weights, losses)
            if weights is not None:
                nats.backward(torch.from_numpy(slopes).to(nats))  # type: ignore[no-untyped-call]
        return True

    def _nats(self, load: Load, shared: bool) -> Tensor:
        """Read a batch; a row that is too much alone with layers that keep nothing."""
        enough = self._room.holds(load) or not torch.is_grad_enabled()
        with nullcontext() if enough else layers_run_again(self._model):
            return self._forward.nats(load.rows, shared=shared and self._whole(load))

    def _try(self, nats: Tensor, load: Load) -> None:
        """See whether a backward pass has the memory that it needs, a parameter's gradient too."""
        if not nats.requires_grad or self._room.proven(load):
            return
        learning = [p for p in self._model.parameters() if p.requires_grad]
        held = torch.empty_like(max(learning, key=torch.numel), dtype=torch.float32)
        torch.autograd.grad(nats.sum(), learning[0], retain_graph=True, allow_unused=True)
        del held
        self._room.prove(load)


def _several(part: Part) -> bool:
    return sum(len(row.continuations) for row in part.rows) > 1


def _in_order(parts: Sequence[Part], shared: bool) -> list[Part]:
    """Sort parts: the longest first, and those next to each other that begin alike."""
    blocks = [part.rows[0].context[:_BLOCK].tobytes() for part in parts]
    alike = {block for block, n in Counter(blocks).items() if n > 1} if shared else set()
    widths = [max(len(row.read) for row in part.rows) for part in parts]
    widest: dict[bytes, int] = {}
    for block, width in zip(blocks, widths, strict=True):
        widest[block] = max(width, widest.get(block, 0))

    def key(i: int) -> tuple[int, bytes, bytes, int]:
        row, block = parts[i].rows[0], blocks[i]
        grouped = block in alike and len(row.context) > _BLOCK
        text = row.context.tobytes() + row.continuations[0].tobytes()
        return (-widest[block], block, text, i) if grouped else (-widths[i], b"", text, i)

    return [parts[i] for i in sorted(range(len(parts)), key=key)]


def _slopes(
    batch: Sequence[Part], nats: Numbers, weights: Sequence[float] | None, losses: list[float]
) -> Numbers:
    """Add a batch's losses to ``losses``; return the slope of their weighted sum by each nat."""
    slopes = []
    for part in batch:
        n = sum(len(row.continuations) for row in part.rows)
        loss, slope = part.value(nats[:n])
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"the loss of what follows {part.rows[0].context.tolist()[-8:]} is {loss}; "
                "it must be finite"
            )
        losses[part.place] += loss
        slopes.append(slope if weights is None else slope * weights[part.place])
        nats = nats[n:]
    return np.concatenate(slopes)


def _numbers(nats: Tensor) -> Numbers:
    numbers: Numbers = nats.detach().double().cpu().numpy()
    return numbers


def _no_room(load: Load) -> str:
    return (
        f"a sequence of {load.longest} tokens does not fit the memory with its gradient; "
        "leave such items out, or search without gradients"
    )


def _check(model: PreTrainedModel, targets: Sequence[Target], weights: Sequence[float]) -> None:
    if getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None):
        raise ParameterError(
            f"{type(model).__name__} is quantised: its weights have no gradients; search with "
            "another sampler, or on parents that are not"
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise ParameterError("no parameter of the model is to have a gradient")
    if len(weights) != len(targets) or not all(map(math.isfinite, weights)):
        raise ParameterError(
            f"expected one finite weight for each of {len(targets)} targets, got {list(weights)}"
        )

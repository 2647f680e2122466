"""How much one backward pass may hold; and layers that hold nothing, since they are run again.

What a token leaves for the backward pass is found by trial, on a short text, for each model. On a
CPU the bound is one number, so that the same targets make the same batches in every process; on an
accelerator it starts at half the memory and is halved where memory ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from evaluators.engines.hf.graph_forward import Row, begin_alike, shared_start

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CPU_BYTES = 2 * 2**30
_TRIAL = 64  # tokens
_HELD = 0.15  # of a token's activations: its keys and values, copied for one more row
_LOGIT_BYTES = 16  # a logit, its logarithm, and the gradients of both
_WIDER = 16  # than its embedding is what a layer makes of a token
_FLOAT_BYTES = 4
_MANY = 2**31


@dataclass(frozen=True)
class Load:
    """What a batch of rows asks of the memory."""

    rows: tuple[Row, ...] = ()
    widest: int = 0  # tokens of a row in the first pass
    longest: int = 0  # tokens of a sequence that are read, in both
    start: int = _MANY  # tokens that all begin with
    later: int = 0  # tokens of second passes
    held: int = 0  # tokens whose keys and values are copied for them
    logits: int = 0  # tokens that are scored

    def with_rows(self, rows: Sequence[Row], shared: bool) -> Load:
        """Return the load with more rows; what all begin with may be ``shared``."""
        first = (*self.rows, *rows)[0]
        alike = [begin_alike(first, row) if shared else 0 for row in rows]
        return Load(
            (*self.rows, *rows),
            max(self.widest, *(len(row.read) for row in rows)),
            max(self.longest, *(row.longest for row in rows)),
            min(self.start, *alike),
            self.later + sum(len(x) - 1 for row in rows for x in row.later),
            self.held + sum(len(row.context) * len(row.later) for row in rows),
            self.logits + sum(len(x) for row in rows for x in row.continuations),
        )

    def tokens(self) -> float:
        """Return how many tokens' activations are held."""
        n = len(self.rows)
        start = shared_start(n, self.start)
        each = self.widest - start + _HELD * start
        return start + n * each + self.later + _HELD * self.held


class Room:
    """How much may be held at once, for one model; no more than ``most_rows`` contexts."""

    def __init__(self, model: PreTrainedModel, most_rows: int) -> None:
        self._model = model
        self._most_rows = most_rows
        device, half = model.device, 1 / 2
        whole = torch.cuda.mem_get_info(device)[1] * half if device.type == "cuda" else _CPU_BYTES
        self._bytes = float(whole)
        self._proven = float("inf") if device.type == "cpu" else 0.0
        self._token, self._learning = 0.0, -1  # bytes; with so many parameters that have gradients

    def measure(self) -> None:
        """Find what a token leaves behind, if that is not known."""
        learning = sum(p.requires_grad for p in self._model.parameters())
        if learning != self._learning:
            self._token = max(_left_behind(self._model) / _TRIAL, _passing(self._model))
            self._learning = learning

    def fits(self, load: Load) -> bool:
        """Tell whether rows may be read together."""
        return len(load.rows) <= self._most_rows and self.holds(load)

    def holds(self, load: Load) -> bool:
        """Tell whether there is memory for rows."""
        return self._size(load) <= self._bytes

    def proven(self, load: Load) -> bool:
        """Tell whether as much has fitted before; a CPU does not say what does not."""
        return self._size(load) <= self._proven

    def prove(self, load: Load) -> None:
        """Remember that so much fits."""
        self._proven = self._size(load)

    def shrink(self, load: Load) -> None:
        """Let half of what did not fit be the most."""
        self._bytes = min(self._bytes, self._size(load)) / 2
        torch.cuda.empty_cache()

    def _size(self, load: Load) -> float:
        return load.tokens() * self._token + load.logits * _words(self._model) * _LOGIT_BYTES


def _words(model: PreTrainedModel) -> int:
    embedding: Any = model.get_input_embeddings()
    return int(embedding.num_embeddings)


def _passing(model: PreTrainedModel) -> float:
    """Return the bytes of a token that a layer works on, also where nothing is kept."""
    embedding: Any = model.get_input_embeddings()
    return float(_WIDER * embedding.embedding_dim * _FLOAT_BYTES)


def _left_behind(model: PreTrainedModel) -> int:
    """Return the bytes that the forward pass of a short text keeps for the backward pass."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor  # alive until the count is done, so that no address comes twice

    ids = torch.arange(_TRIAL, device=model.device)[None]
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        left = model.base_model(input_ids=ids % _words(model), use_cache=False)
    del left
    return sum(size for place, size in kept.items() if place not in own)


@contextmanager
def layers_run_again(model: PreTrainedModel) -> Iterator[None]:
    """Let layers keep only what goes in: the backward pass runs each of them once more.

    transformers does so in training mode alone, where there is dropout.
    """
    layers = [x for x in model.modules() if isinstance(x, GradientCheckpointingLayer)]
    for layer in layers:
        run = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
        layer.forward = run
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward

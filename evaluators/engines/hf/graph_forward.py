"""The model, run with a graph behind it: continuations in, their nats out, to be differentiated.

    contexts       AAAABBB      AAAACC       what all of a batch begin with is read once,
    continuations     |x y z       |u v      a lone continuation in the row of its context,
                                   |w        several in rows of their own behind its cache

Rows are padded on the right, where a causal model does not look; so a first pass needs no mask. The
head runs only where a logit is wanted. Sums and softmax are float32, whatever the model's type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from evaluators.engines.encoding import Ask, Ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SHARE = 16  # tokens that rows must have in common for a pass of its own


@dataclass(frozen=True, eq=False)
class Row:
    """A context and what follows it: one continuation, or several."""

    context: Ids
    continuations: tuple[Ids, ...]  # at least 1; several only where a model has a cache

    @property
    def lone(self) -> bool:
        """Whether the context's row is read on to the end of its continuation."""
        return len(self.continuations) == 1

    @property
    def read(self) -> Ids:
        """What the first pass reads: never the last token of a continuation."""
        more = self.continuations[0][:-1] if self.lone else self.continuations[0][:0]
        return np.concatenate([self.context, more])

    @property
    def later(self) -> list[Ids]:
        """What is read in a second pass."""
        return [] if self.lone else [x for x in self.continuations if len(x) > 1]

    @property
    def longest(self) -> int:
        """How many tokens of a sequence are read, in both passes."""
        return len(self.context) + max(map(len, self.continuations)) - 1


def rows_of(asks: Sequence[Ask], shared: bool) -> tuple[list[Row], list[int]]:
    """Gather continuations by their contexts, or not where they cannot be ``shared``.

    Returns:
        The rows; and for each ask its place among all continuations of all rows. Twins are one.
    """
    contexts: dict[object, tuple[Ids, dict[bytes, Ids]]] = {}
    keys = []
    for ask in asks:
        name, answer = ask.context.tobytes(), ask.continuation.tobytes()
        key = name if shared else (name, answer)
        contexts.setdefault(key, (ask.context, {}))[1].setdefault(answer, ask.continuation)
        keys.append((key, answer))
    rows = [Row(context, tuple(after.values())) for context, after in contexts.values()]
    order = [(key, answer) for key, (_, after) in contexts.items() for answer in after]
    places = {pair: place for place, pair in enumerate(order)}
    return rows, [places[pair] for pair in keys]


def begin_alike(one: Row, other: Row) -> int:
    """Return how many tokens two contexts begin with; of each one is left to be read on."""
    n = min(len(one.context), len(other.context)) - 1
    unlike = np.flatnonzero(one.context[:n] != other.context[:n])
    return int(unlike[0]) if len(unlike) else n


def shared_start(rows: int, alike: int) -> int:
    """Return how many tokens are read once for some rows that begin with so many."""
    return alike if rows > 1 and alike >= _SHARE else 0


class GraphForward:
    """Runs one model, which is in evaluation mode and has ``max_length`` places."""

    def __init__(self, model: PreTrainedModel, max_length: int) -> None:
        self._model = model
        self._last_place = max_length - 1

    def nats(self, rows: Sequence[Row], *, shared: bool) -> Tensor:
        """Return the log-likelihood of each continuation: those of the first row, the second, ...

        Args:
            rows: At least one.
            shared: Whether what all rows begin with may be read once; not without a cache.

        Returns:
            ``(continuations,)`` float32.
        """
        alike = min(begin_alike(rows[0], row) for row in rows) if shared else 0
        start = shared_start(len(rows), alike)
        later = [(i, k, x) for i, k, x in _numbered(rows) if not rows[i].lone and len(x) > 1]
        cache = _expanded(self._prefix(rows[0].context[:start]), len(rows)) if start else None
        if later and cache is None:
            cache = _empty()
        ids = [row.read[start:] for row in rows]
        wanted = [
            [(i, len(rows[i].context) - start - 1 + n, int(token)) for n, token in enumerate(x)]
            if rows[i].lone
            else [(i, len(rows[i].context) - start - 1, int(x[0]))]
            for i, _, x in _numbered(rows)
        ]
        lengths = self._tensor([len(row) + start for row in ids])[:, None]
        places = None if cache is None else torch.full_like(lengths, start)
        told = self._picked(ids, wanted, cache, places)
        if later:
            found = self._laters(later, cache, lengths)
            told = told.index_add(0, self._tensor([k for _, k, _ in later]), found)
        return told

    def _prefix(self, ids: Ids) -> Cache:
        """Read what all rows begin with."""
        cache = _empty()
        self._model.base_model(
            input_ids=self._tensor(ids)[None], past_key_values=cache, use_cache=True
        )
        return cache

    def _laters(self, later: Sequence[tuple[int, int, Ids]], cache: Any, lengths: Tensor) -> Tensor:
        """Return the nats of all but the first tokens of continuations, behind their contexts."""
        index = self._tensor([i for i, _, _ in later])
        before, width = lengths[index], cache.get_seq_length()
        wanted = [
            [(row, n, int(token)) for n, token in enumerate(x[1:])]
            for row, (_, _, x) in enumerate(later)
        ]
        ids = [x[:-1] for _, _, x in later]
        mask = (torch.arange(width, device=index.device) >= width - before).long()
        return self._picked(ids, wanted, _behind(cache, index, before), before, mask)

    def _picked(
        self,
        rows: Sequence[Ids],
        wanted: Sequence[Sequence[tuple[int, int, int]]],  # row, place in it, the token behind it
        cache: Any = None,  # what stands before the rows; it grows
        places: Tensor | None = None,  # (rows, 1) of the first token of each; with a cache
        mask: Tensor | None = None,  # (rows, tokens in the cache) 0 where padding is
    ) -> Tensor:  # (len(wanted),) nats of the tokens of each, summed
        ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        tokens = self._tensor(ids)
        more: dict[str, Any] = {"use_cache": False}
        if places is not None:
            steps = places + torch.arange(tokens.shape[1], device=tokens.device)
            more = {"past_key_values": cache, "use_cache": True}
            more["position_ids"] = steps.clamp(max=self._last_place)
        if mask is not None:
            more["attention_mask"] = torch.cat([mask, torch.ones_like(tokens)], dim=1)
        at = {pair: n for n, pair in enumerate(dict.fromkeys(x[:2] for y in wanted for x in y))}
        logs = self._logits(tokens, list(at), more).float().log_softmax(-1)
        table = np.zeros((3, len(wanted), max(map(len, wanted))), dtype=np.int64)
        for k, line in enumerate(wanted):
            table[:, k, : len(line)] = [
                [at[i, n] for i, n, _ in line],
                [token for _, _, token in line],
                [1] * len(line),
            ]
        index, token, there = self._tensor(table)
        # Not logs[index, token]: with several threads its gradient adds up in any order.
        flat = (index * logs.shape[1] + token).flatten()
        nats = logs.flatten().index_select(0, flat).view(index.shape)
        return torch.where(there > 0, nats, 0.0).sum(-1)

    def _logits(
        self, ids: Tensor, wanted: Sequence[tuple[int, int]], more: dict[str, Any]
    ) -> Tensor:
        """Return the logits after some tokens: (len(wanted), vocabulary)."""
        rows, places = self._tensor(wanted).T
        with _head_only_at(self._model, rows, places) as seen:
            out: Any = self._model(input_ids=ids, **more)
        logits: Tensor = out.logits[0] if seen else out.logits[rows, places]
        return logits

    def _tensor(self, numbers: Any) -> Tensor:
        return torch.from_numpy(np.asarray(numbers, dtype=np.int64)).to(self._model.device)


@contextmanager
def _head_only_at(model: PreTrainedModel, rows: Tensor, places: Tensor) -> Iterator[list[bool]]:
    """Let the head see some tokens only, as one row of them.

    ``logits_to_keep`` takes the same places of all rows. Yields a list that is not empty once the
    head was called: a model that does not call it gives the logits of all tokens.
    """
    seen: list[bool] = []

    def narrowed(_: torch.nn.Module, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(True)
        return (states[0][rows, places][None], *states[1:])

    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    hook = head.register_forward_pre_hook(narrowed) if head is not None else None
    try:
        yield seen
    finally:
        if hook is not None:
            hook.remove()


def _numbered(rows: Sequence[Row]) -> list[tuple[int, int, Ids]]:
    """Return all continuations: of which row, its number, itself."""
    flat = [(i, x) for i, row in enumerate(rows) for x in row.continuations]
    return [(i, k, x) for k, (i, x) in enumerate(flat)]


def _empty() -> Cache:
    """Return a cache whose tensors are never written to in place, so that gradients pass."""
    return Cache(layer_class_to_replicate=DynamicLayer)


def _expanded(cache: Any, rows: int) -> Cache:
    """Return the one row of a cache as several."""
    return Cache(
        [
            _holding(*(x.expand(rows, -1, -1, -1) for x in (layer.keys, layer.values)))
            for layer in cache.layers
        ]
    )


def _behind(cache: Any, rows: Tensor, lengths: Tensor) -> Cache:
    """Return some rows of a cache, moved to its end: a window goes by the distance there."""
    width = cache.get_seq_length()
    from_ = (torch.arange(width, device=rows.device) - (width - lengths)).clamp(min=0)
    still = bool((lengths == width).all())

    each = torch.arange(len(rows), device=rows.device)[:, None]

    def moved(states: Tensor) -> Tensor:
        chosen = states.index_select(0, rows)
        return chosen if still else chosen.transpose(1, 2)[each, from_].transpose(1, 2)

    return Cache([_holding(moved(layer.keys), moved(layer.values)) for layer in cache.layers])


def _holding(keys: Tensor, values: Tensor) -> DynamicLayer:
    layer = DynamicLayer()  # type: ignore[no-untyped-call]
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer

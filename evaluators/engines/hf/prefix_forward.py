"""The model, run in steps: contexts in chunks from their start, then what follows them.

Every chunk is read by itself, whether or not other rows share it, so what a row computes does not
depend on its neighbours: shared few-shot prefixes are read once, and no row changes its bits. The
head runs only where a logit is wanted: after the last token of a context, and on what follows.

    contexts            AAAABBBBCCx          AAAABBBBy             AAAADDz
    chunks              AAAA, read once for all three
                            BBBB, once for two                         DD..     . is padding,
                                CC..                                            masked out
    then in one cache   ...AAAABBBBCC|x|     .....AAAABBBB|y|      .......AAAADD|z|
    logits                            l                    l                     l
    read on                             ->                  ->                    ->
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache

from evaluators.engines.encoding import Ids
from evaluators.engines.hf.batching import filled
from evaluators.engines.hf.kv_cache import Memory, RoomyLayer
from merge_core.errors import EvaluationError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CHUNK = 64  # tokens of a context per pass: enough for a matrix product, little to share
_TAIL = 16  # a last short chunk is padded to a multiple of this


@dataclass(frozen=True)
class Read:
    """Rows that the model has read: what it needs to read on."""

    cache: Any  # a ``Cache`` of ``RoomyLayer``
    mask: Tensor  # (rows, tokens read) int64, 0 where padding is
    ends: Tensor  # (rows, 1) int64, place of the next token
    memory: Memory  # that the cache is in

    def run(self, first: int, end: int) -> Read:
        """Return neighbouring rows, to be read on in the memory that they are in."""
        cache = Cache([layer.run(first, end) for layer in self.cache.layers])
        return Read(cache, self.mask[first:end], self.ends[first:end], self.memory)

    def copied(self, rows: Sequence[int], room: int, memory: Memory) -> Read:
        """Return copies of some rows, with room for tokens to come."""
        index = torch.tensor(rows, device=self.mask.device)
        cache = Cache([layer.copied(rows, room, memory) for layer in self.cache.layers])
        return Read(cache, self.mask[index], self.ends[index], memory)


class Forward:
    """Runs one model, which is in evaluation mode and has ``max_length`` places.

    What ``before`` has read is overwritten: its memory is used again.
    """

    def __init__(
        self, model: PreTrainedModel, max_length: int, before: Forward | None = None
    ) -> None:
        self.device = model.device
        self._model = model
        self._last_place = max_length - 1
        takes_places = "position_ids" in inspect.signature(model.forward).parameters
        self._works = None if takes_places else False  # None: not tried
        self._memories: tuple[Memory, Memory] = (
            (Memory(), Memory()) if before is None else before._memories
        )

    def read(
        self,
        rows: Sequence[Ids],  # of one ``padded`` length, at least 1 token each
        length: int,  # that one
        room: int = 1,  # tokens that will be read on, one by one
        chunk: int = _CHUNK,
    ) -> tuple[Read, Tensor]:  # logits of what comes next: (rows or more, vocabulary)
        """Read contexts. Rows are repeated up to ``filled``, and come back repeated.

        What was read before is overwritten.
        """
        rows = [rows[i % len(rows)] for i in range(filled(len(rows)))]
        heads = [row[:-1] for row in rows]
        state = self._empty(len(rows), room, self._memories[1].again())
        if length:
            state = self._aligned(self._prefixes(heads, chunk), heads, length, room)
        last = self._tensor(np.array([row[-1:] for row in rows]))
        state, logits = self.read_on(state, last)
        return state, logits[:, -1]

    def read_on(
        self,
        state: Read,  # its cache grows in place
        ids: Tensor,  # (rows, n) int64
    ) -> tuple[Read, Tensor]:  # logits after each: (rows, n, vocabulary)
        """Read the next tokens of each row."""
        after, out = self._call(self._model, state, ids)
        logits: Tensor = out.logits
        return after, logits

    def only(self, state: Read, rows: Sequence[int], room: int) -> Read:
        """Return some rows, in that order, repeats allowed, with room for tokens to come.

        ``state`` is left alone, what an earlier call made of it is overwritten.
        """
        (other,) = (memory for memory in self._memories if memory is not state.memory)
        return state.copied(rows, room, other.again())

    def works(self) -> bool:
        """Tell whether reading in steps gives what one plain forward pass gives for this model.

        It does for models with attention, a cache, and places that can be given; not for some with
        a state. Tried once, on a few tokens, unless the weights are not finite.

        Raises:
            EvaluationError: What the model says of a token depends on those behind it.
        """
        if self._works is None:
            self._works = self._agrees()
        return self._works is not False

    def _prefixes(self, heads: Sequence[Ids], chunk: int) -> list[tuple[Read, int]]:
        """Read heads chunk by chunk, each different one once; return where each is, and its row.

        What stands behind a head's last token there is padding.
        """
        places: dict[int, tuple[Read, int]] = {}
        most = -(-max(len(head) for head in heads) // _TAIL) * _TAIL
        state = self._empty(1, most, self._memories[0].again())
        rows_at, start = dict.fromkeys(range(len(heads)), 0), 0
        while rows_at:
            alike: dict[tuple[int, bytes], list[int]] = defaultdict(list)
            for i in rows_at:
                width = min(chunk, -(-(len(heads[i]) - start) // _TAIL) * _TAIL)
                alike[width, heads[i][: start + width].tobytes()].append(i)
            children = Counter(rows_at[twins[0]] for twins in alike.values())
            steps: dict[int, list[list[int]]] = defaultdict(list)
            for (width, _), twins in sorted(alike.items()):
                steps[width].append(twins)
            going: dict[int, int] = {}
            for width, shared in steps.items():
                # First those that go on longest: what ends leaves neighbours behind, which are
                # read on where they are.
                shared.sort(key=lambda twins: -max(len(heads[i]) for i in twins))
                ids = _right_padded(
                    [heads[twins[0]][start : start + width] for twins in shared], width
                )
                parents = [rows_at[twins[0]] for twins in shared]
                parents += parents[:1] * (len(ids) - len(parents))
                alone = all(children[parent] == 1 for parent in parents)
                before = self._parents(state, parents, alone, most - start)
                now, _ = self._call(self._model.base_model, before, self._tensor(ids))
                for k, twins in enumerate(shared):
                    places.update((i, (now, k)) for i in twins)
                    going.update((i, k) for i in twins if len(heads[i]) > start + width)
            if going:  # only full chunks, which come last, go on
                state = now
            rows_at, start = going, start + chunk
        return [places[i] for i in range(len(heads))]

    def _parents(self, state: Read, rows: Sequence[int], alone: bool, room: int) -> Read:
        """Return rows to be read on: where they are, if none but they go on from there."""
        first, end = rows[0], rows[0] + len(rows)
        if not state.cache.layers:
            return self._empty(len(rows), room, state.memory)
        if alone and list(rows) == list(range(first, end)):
            return state.run(first, end)
        return state.copied(rows, room, state.memory)

    def _aligned(
        self, places: Sequence[tuple[Read, int]], heads: Sequence[Ids], length: int, room: int
    ) -> Read:
        """Put rows that were read apart into one cache, padded on the left."""
        layers: list[Any] = []
        memory = self._memories[1].again()
        fewest = min(len(head) for head in heads)
        for number, layer in enumerate(places[0][0].cache.layers):
            keys, values = (
                memory.empty(t, len(heads), length + room) for t in (layer.keys, layer.values)
            )
            for held in (keys, values):
                held[:, :, : length - fewest] = 0  # padding is masked, but must be finite
            for i, ((state, row), head) in enumerate(zip(places, heads, strict=True)):
                source, n = state.cache.layers[number], len(head)
                keys[i, :, length - n : length] = source.keys[row, :, :n]
                values[i, :, length - n : length] = source.values[row, :, :n]
            layers.append(RoomyLayer.holding(keys, values, length))
        ends = self._tensor(np.array([[len(head)] for head in heads]))
        mask = (torch.arange(length, device=self.device) >= length - ends).long()
        return Read(Cache(layers), mask, ends, memory)

    def _empty(self, rows: int, room: int, memory: Memory) -> Read:
        nothing = torch.zeros((rows, 0), dtype=torch.int64, device=self.device)
        layer: Any = functools.partial(RoomyLayer, room, memory)
        cache = Cache(layer_class_to_replicate=layer)
        return Read(cache, nothing, nothing.new_zeros((rows, 1)), memory)

    def _call(self, module: torch.nn.Module, state: Read, ids: Tensor) -> tuple[Read, Any]:
        places = state.ends + torch.arange(ids.shape[1], device=self.device)
        mask = torch.cat([state.mask, torch.ones_like(ids)], dim=1)
        with torch.no_grad():
            out = module(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=state.cache,
                use_cache=True,
                # Padding after the last place of the model is never looked at.
                position_ids=places.clamp(max=self._last_place),
            )
        return Read(state.cache, mask, state.ends + ids.shape[1], state.memory), out

    def _agrees(self) -> bool | None:
        """Compare on two rows of unequal length; ``None`` where the logits are not finite."""
        vocabulary: Any = self._model.get_input_embeddings().num_embeddings
        ids = (np.arange(1, 16) * 7919 % vocabulary).astype(np.int32)
        rows, end = [ids[:5], ids[:12]], ids[12:]
        with torch.no_grad():
            whole = [self._tensor(np.concatenate([row, end]))[None] for row in rows]
            plain = [self._model(ids, use_cache=False).logits[0] for ids in whole]
            before = self._model(whole[1][:, :-1], use_cache=False).logits[0]
        expected = torch.stack([logits[-4:] for logits in plain])
        if not torch.isfinite(expected.amax(-1)).all():
            return None
        if _apart(before, plain[1][:-1], expected):
            raise EvaluationError(
                f"{type(self._model).__name__} cannot be scored: expected a causal language model, "
                "but what it says of a token depends on those behind it"
            )
        try:
            state, first = self.read(rows, 16, chunk=4)
            _, later = self.read_on(state, self._tensor(end).expand(len(first), -1))
        except (TypeError, ValueError, AttributeError, LookupError, RuntimeError, AssertionError):
            return False  # a model of another kind: it is not read in steps, but by HFLM
        found = torch.cat([first[:2, None], later[:2]], dim=1)
        return not _apart(found, expected, expected)

    def _tensor(self, ids: Ids) -> Tensor:
        return torch.from_numpy(ids.astype(np.int64)).to(self.device)


def _apart(found: Tensor, expected: Tensor, all_: Tensor) -> bool:
    """Tell whether logits are further apart than by rounding, next to the largest of all."""
    finite = torch.isfinite(expected)
    apart = float((found - expected)[finite].abs().amax())
    scale = float(all_[torch.isfinite(all_)].abs().amax())
    return bool(apart > torch.finfo(found.dtype).eps ** 0.5 * scale)


def _right_padded(rows: Sequence[Ids], width: int) -> Ids:
    """Return the rows as one array, with rows of padding up to ``filled``."""
    ids = np.zeros((filled(len(rows), width), width), dtype=np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids


def most_likely(logits: Tensor) -> Tensor:
    """Return the place of each row's highest entry, the first of equals; NaN is highest."""
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        return torch.from_numpy(logits.numpy().argmax(-1))  # a quarter of torch's time
    return logits.argmax(-1)

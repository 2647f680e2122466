"""The model, run in steps: contexts in chunks from their start, then what follows them.

Every chunk is read by itself, whether or not other rows share it, so what a row computes does not
depend on its neighbours: shared few-shot prefixes are read once, and no row changes its bits. The
head runs only where a logit is wanted: after the last token of a context, and on what follows.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from evaluators.token_batches import Ids, filled

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CHUNK = 64  # tokens of a context per pass: enough for a matrix product, little to share
_TAIL = 16  # a last short chunk is padded to a multiple of this


@dataclass(frozen=True)
class Read:
    """Rows that the model has read: what it needs to read on."""

    cache: Cache
    mask: Tensor  # (rows, tokens read) int64, 0 where padding is
    ends: Tensor  # (rows, 1) int64, place of the next token

    def only(self, rows: Sequence[int], room: int = 1) -> Read:
        """Return some rows, in that order, repeats allowed, with room for tokens to come.

        The cache of ``self`` is left alone.
        """
        index = torch.tensor(rows, device=self.mask.device)
        cache = Cache(layer_class_to_replicate=_RoomyLayer)
        cache.layers += [_RoomyLayer.of_rows(layer, rows, room) for layer in self.cache.layers]
        return Read(cache, self.mask[index], self.ends[index])


class Forward:
    """Runs one model.

    Args:
        model: In evaluation mode.
        max_length: Places that the model has.
    """

    def __init__(self, model: PreTrainedModel, max_length: int) -> None:
        self.device = model.device
        self._model = model
        self._last_place = max_length - 1
        self._takes_places = "position_ids" in inspect.signature(model.forward).parameters
        self._works: bool | None = None

    def read(
        self,
        rows: Sequence[Ids],  # of one ``padded`` length, at least 1 token each
        length: int,  # that one
        room: int = 1,  # tokens that will be read on, one by one
        chunk: int = _CHUNK,
    ) -> tuple[Read, Tensor]:  # logits of what comes next: (rows or more, vocabulary)
        """Read contexts. Rows are repeated up to ``filled``, and come back repeated."""
        rows = [rows[i % len(rows)] for i in range(filled(len(rows)))]
        heads = [row[:-1] for row in rows]
        state = self._empty(len(rows))
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

    def works(self) -> bool:
        """Tell whether reading in steps gives what one plain forward pass gives for this model.

        It does for models with attention, a cache, and places that can be given; not for some with
        a state. Tried once, on a few tokens, unless the weights are not finite.
        """
        if not self._takes_places:
            return False
        if self._works is None:
            agrees = self._agrees()
            if agrees is None:
                return True
            self._works = agrees
        return self._works

    def _prefixes(self, heads: Sequence[Ids], chunk: int) -> list[tuple[Read, int]]:
        """Read heads chunk by chunk, each different one once; return where each is, and its row.

        What stands behind a head's last token there is padding.
        """
        places: dict[int, tuple[Read, int]] = {}
        state, rows_at, start = self._empty(1), dict.fromkeys(range(len(heads)), 0), 0
        while rows_at:
            widths: dict[int, list[int]] = defaultdict(list)
            for i in rows_at:
                widths[_width(len(heads[i]) - start, chunk)].append(i)
            going: dict[int, int] = {}
            for width, some in sorted(widths.items()):
                shared = _alike(some, [heads[i][: start + width].tobytes() for i in some])
                ids = _right_padded(
                    [heads[twins[0]][start : start + width] for twins in shared], width
                )
                parents = [rows_at[twins[0]] for twins in shared]
                parents += parents[:1] * (len(ids) - len(parents))
                now, _ = self._call(
                    self._model.base_model, state.only(parents, width), self._tensor(ids)
                )
                for k, twins in enumerate(shared):
                    places.update((i, (now, k)) for i in twins)
                    going.update((i, k) for i in twins if len(heads[i]) > start + width)
            if going:  # only full chunks, which come last, go on
                state = now
            rows_at, start = going, start + chunk
        return [places[i] for i in range(len(heads))]

    def _aligned(
        self, places: Sequence[tuple[Read, int]], heads: Sequence[Ids], length: int, room: int
    ) -> Read:
        """Put rows that were read apart into one cache, padded on the left."""
        cache = Cache(layer_class_to_replicate=_RoomyLayer)
        first: list[Any] = places[0][0].cache.layers
        for number, layer in enumerate(first):
            keys, values = (_blank(t, len(heads), length, room) for t in (layer.keys, layer.values))
            for i, ((state, row), head) in enumerate(zip(places, heads, strict=True)):
                source: Any = state.cache.layers[number]
                n = len(head)
                keys[i, :, length - n : length] = source.keys[row, :, :n]
                values[i, :, length - n : length] = source.values[row, :, :n]
            cache.layers.append(_RoomyLayer.holding(keys, values, length))
        ends = self._tensor(np.array([[len(head)] for head in heads]))
        mask = (torch.arange(length, device=self.device) >= length - ends).long()
        return Read(cache, mask, ends)

    def _empty(self, rows: int) -> Read:
        nothing = torch.zeros((rows, 0), dtype=torch.int64, device=self.device)
        cache = Cache(layer_class_to_replicate=_RoomyLayer)
        return Read(cache, nothing, nothing.new_zeros((rows, 1)))

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
        return Read(state.cache, mask, state.ends + ids.shape[1]), out

    def _agrees(self) -> bool | None:
        """Compare on two rows of unequal length; ``None`` where the logits are not finite."""
        vocabulary: Any = self._model.get_input_embeddings().num_embeddings
        ids = (np.arange(1, 16) * 7919 % vocabulary).astype(np.int32)
        rows, end = [ids[:5], ids[:12]], ids[12:]
        with torch.no_grad():
            plain = [self._plain(np.concatenate([row, end])) for row in rows]
        expected = torch.stack(plain)
        finite = torch.isfinite(expected)
        if not torch.isfinite(expected.amax(-1)).all():
            return None
        try:
            state, first = self.read(rows, 16, chunk=4)
            _, later = self.read_on(state, self._tensor(end).expand(len(first), -1))
        except (TypeError, ValueError, AttributeError, LookupError, RuntimeError, AssertionError):
            return False  # a model of another kind: it is not read in steps, but by HFLM
        found = torch.cat([first[:2, None], later[:2]], dim=1)
        apart = float((found - expected)[finite].abs().amax())
        scale = float(expected[finite].abs().amax())
        return bool(apart <= torch.finfo(found.dtype).eps ** 0.5 * scale)

    def _plain(self, ids: Ids) -> Tensor:
        logits: Tensor = self._model(self._tensor(ids)[None], use_cache=False).logits
        return logits[0, -4:]

    def _tensor(self, ids: Ids) -> Tensor:
        return torch.from_numpy(ids.astype(np.int64)).to(self.device)


def _width(left: int, chunk: int) -> int:
    """Return how many tokens are read next where ``left`` are left."""
    return min(chunk, -(-left // _TAIL) * _TAIL)


def _alike(rows: Iterable[int], keys: Iterable[bytes]) -> list[list[int]]:
    """Gather rows of equal keys, in the order of the keys."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for row, key in zip(rows, keys, strict=True):
        found[key].append(row)
    return [found[key] for key in sorted(found)]


def _right_padded(rows: Sequence[Ids], width: int) -> Ids:
    """Return the rows as one array, with rows of padding up to ``filled``."""
    ids = np.zeros((filled(len(rows), width), width), dtype=np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids


def _blank(like: Tensor, rows: int, length: int, room: int) -> Tensor:
    heads, size = like.shape[1], like.shape[3]
    held = like.new_empty((rows, heads, length + room, size))
    held[:, :, :length] = 0  # padding is masked, but must be finite
    return held


class _RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Writes a new token behind the others; its parent copies them all for each new token."""

    _held: tuple[Tensor, Tensor] | None = None
    _room = 0

    @classmethod
    def holding(cls, keys: Tensor, values: Tensor, length: int) -> _RoomyLayer:
        """Return a layer with ``length`` tokens, and room for those behind."""
        layer = cls()
        layer.lazy_initialization(keys, values)
        layer._held, layer._room = (keys, values), keys.shape[-2] - length
        layer.keys, layer.values = keys[:, :, :length], values[:, :, :length]
        return layer

    @classmethod
    def of_rows(cls, layer: Any, rows: Sequence[int], room: int) -> _RoomyLayer:
        """Return a layer with some rows of another."""
        length = layer.keys.shape[-2]
        keys, values = (_chosen(t, rows, room) for t in (layer.keys, layer.values))
        return cls.holding(keys, values, length)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """See the parent."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        assert self.keys is not None
        assert self.values is not None
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        if self._held is None or self._held[0].shape[-2] < end:
            every = range(len(self.keys))
            room = end - start + self._room
            self._held = _chosen(self.keys, every, room), _chosen(self.values, every, room)
        for held, new in zip(self._held, (key_states, value_states), strict=True):
            held[:, :, start:end] = new
        self.keys, self.values = (held[:, :, :end] for held in self._held)
        return self.keys, self.values


def _chosen(old: Tensor, rows: Sequence[int], room: int) -> Tensor:
    """Copy some rows, with room behind."""
    length = old.shape[2]
    held = old.new_empty((len(rows), old.shape[1], length + room, old.shape[3]))
    if old.device.type == "cpu":
        for new, row in zip(held, rows, strict=True):  # half the time of an indexed copy
            new[:, :length] = old[row]
    else:
        held[:, :, :length] = old[torch.tensor(rows, device=old.device)]
    return held

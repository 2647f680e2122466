"""How much each decoder layer, and each block of layers, turns the residual stream.

    x_l       residual stream at the input of layer l, x_L behind the last one (before a last norm)
    d(l, n) = angle(x_l, x_{l+n}) / pi at a text's last token, mean over texts; in [0, 1]
    b_l     = 1 - cos(x_l, x_{l+1}), mean over all tokens of all texts; in [0, 2]

Where d(l, n) is small, layers l to l + n - 1 are the ones that a model misses least. A stream that
is zero at a token counts as orthogonal to all others.

Source: angular distance: Gromov et al., arXiv:2403.17887, eq. 7; block influence: Men et al.
(ShortGPT), arXiv:2403.03853, eq. 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from evaluators.engines.encoding import Ids
from evaluators.engines.hf.alone import step_limit
from evaluators.engines.hf.batching import Budget, widened
from merge_core.errors import EvaluationError, NonFiniteError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TOKENS = 512  # whose streams are compared in float64 at once


@dataclass(frozen=True)
class LayerDistances:
    """What was measured of one model with L layers."""

    texts: int
    tokens: int  # of all texts
    influence: tuple[float, ...]  # (L,) b_l
    angular: tuple[tuple[float, ...], ...]  # row n - 1 has d(l, n) for l from 0 to L - n

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return len(self.influence)

    def best(self, size: int) -> int:
        """Return the first layer of the block of ``size`` layers that turns the stream least."""
        row = self.angular[size - 1]
        return row.index(min(row))


def distances(
    model: PreTrainedModel,
    layers: Sequence[Any],
    texts: Sequence[Ids],
    most_rows: int,
    progress: Callable[[int, int], None] | None = None,
) -> LayerDistances:
    """Measure every layer, and every block of layers, on some texts.

    Args:
        model: A causal language model in evaluation mode.
        layers: Its decoder layers in the order in which they run, L of them, at least one.
        texts: Token ids, at least one token each; they fit the model's window. At least one text.
        most_rows: Texts in a forward pass, at most.
        progress: Is told after each pass how many texts are read, and how many there are.

    Raises:
        EvaluationError: A layer does not run once in a pass, or takes no stream of one vector for
            each token.
        NonFiniteError: The stream has NaN or infinite entries.
    """
    depth = len(layers)
    angles, influence = np.zeros((depth + 1, depth + 1)), np.zeros(depth)
    budget, done = Budget(model.device, most_rows), 0
    for length, rows in _by_length(model, texts).items():
        for found in budget.batches(rows, length, partial(_pass, model, layers, length)):
            angles += found[0]
            influence += found[1]
            done += found[2]
            if progress is not None:
                progress(done, len(texts))
    tokens = sum(map(len, texts))
    angles /= len(texts)
    return LayerDistances(
        len(texts),
        tokens,
        tuple((influence / tokens).tolist()),
        tuple(tuple(np.diagonal(angles, n).tolist()) for n in range(1, depth + 1)),
    )


def _by_length(model: PreTrainedModel, texts: Sequence[Ids]) -> dict[int, list[Ids]]:
    """Gather texts by the length that they are padded to, the longest first.

    Where positions hang on the length of a sequence, a long one has no padding.
    """
    limit = step_limit(model.config)
    places = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    most = min((x for x in (limit, places) if x is not None), default=None)
    found: dict[int, list[Ids]] = defaultdict(list)
    for ids in texts:
        wide = widened(len(ids))
        found[wide if most is None or wide <= most else max(len(ids), most)].append(ids)
    return dict(sorted(found.items(), reverse=True))


def _pass(
    model: PreTrainedModel, layers: Sequence[Any], length: int, rows: Sequence[Ids]
) -> tuple[Any, Any, int]:
    """Return sums over some texts: angles ``(L + 1, L + 1)``, influence ``(L,)``; and how many."""
    ids = np.zeros((len(rows), length), dtype=np.int64)  # padded on the right, where none looks
    for row, own in zip(ids, rows, strict=True):
        row[: len(own)] = own
    watched = _Watched([len(own) for own in rows], len(layers))
    with torch.no_grad(), watched.on(layers):
        model.base_model(input_ids=torch.from_numpy(ids).to(model.device), use_cache=False)
    watched.check(type(model).__name__)
    return _angles(watched.points), np.array(watched.influence), len(rows)


class _Watched:
    """What goes into and comes out of every layer in one pass; sums, and the last tokens' stream.

    ``points`` are ``(rows, hidden)`` float64 on the host, of x_0 to x_L.
    """

    def __init__(self, lengths: Sequence[int], depth: int) -> None:
        self._lengths = lengths
        self._entered: Tensor | None = None
        self._order: list[int] = []
        self.influence = [0.0] * depth
        self.points: list[Tensor] = []

    @contextmanager
    def on(self, layers: Sequence[Any]) -> Iterator[None]:
        """Watch layers."""
        with ExitStack() as stack:
            for i, layer in enumerate(layers):
                before = layer.register_forward_pre_hook(self._enters, with_kwargs=True)
                stack.callback(before.remove)
                after = layer.register_forward_hook(self._leaves(i))
                stack.callback(after.remove)
            yield

    def check(self, name: str) -> None:
        """Refuse what is no stream through the layers, each once.

        Raises:
            EvaluationError: It is not.
        """
        if self._order != [*range(len(self.influence))]:
            raise EvaluationError(
                f"{name}: expected its {len(self.influence)} layers to run one after the other, "
                f"got {self._order[:8]}: such a model has no stream from layer to layer"
            )

    def _enters(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = self._stream(layer, args[0] if args else kwargs.get("hidden_states"))
        self.points.append(self._last(stream))
        self._entered = stream.clone()  # a layer may write to it

    def _leaves(self, i: int) -> Any:
        def hook(layer: Any, args: tuple[Any, ...], out: Any) -> None:
            stream = self._stream(layer, out[0] if isinstance(out, tuple) else out)
            assert self._entered is not None
            self._order.append(i)
            self.influence[i] += self._turned(self._entered, stream)
            self._entered = None
            if i == len(self.influence) - 1:
                self.points.append(self._last(stream))

        return hook

    def _stream(self, layer: Any, found: Any) -> Tensor:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if not isinstance(found, Tensor) or found.ndim != 3 or len(found) != len(self._lengths):
            raise EvaluationError(
                f"{type(layer).__name__}: expected one vector for each token of "
                f"{len(self._lengths)} texts in and out of the layer, got {shape}"
            )
        return found

    def _last(self, stream: Tensor) -> Tensor:
        places = torch.tensor(self._lengths, device=stream.device) - 1
        rows = torch.arange(len(self._lengths), device=stream.device)
        return _finite(stream[rows, places])

    def _turned(self, before: Tensor, after: Tensor) -> float:
        """Return the sum of 1 - cosine over the texts' tokens."""
        total = 0.0
        for row, length in enumerate(self._lengths):
            for start in range(0, length, _TOKENS):
                part = slice(start, min(start + _TOKENS, length))
                one, other = _finite(before[row, part]), _finite(after[row, part])
                total += float(_apart(_unit(one), _unit(other))[0].sum()) / 2
        return total


def _finite(stream: Tensor) -> Tensor:
    found = stream.to("cpu", torch.float64)
    if not bool(torch.isfinite(found).all()):
        raise NonFiniteError("the residual stream has NaN or infinite entries; it must be finite")
    return found


def _unit(vectors: Tensor) -> Tensor:
    norms = vectors.norm(dim=-1, keepdim=True)
    return torch.where(norms > 0, vectors / norms.clamp_min(1e-300), 0.0)


def _apart(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return 2 - 2 cos and 2 + 2 cos of unit vectors along the last axis, exact near 0.

    1 - cos itself has no digits left where an angle is small.
    """
    none = (one.abs().amax(-1) == 0) | (other.abs().amax(-1) == 0)
    less, more = ((one - other) ** 2).sum(-1), ((one + other) ** 2).sum(-1)
    return torch.where(none, 2.0, less), torch.where(none, 2.0, more)


def _angles(points: Sequence[Tensor]) -> Any:
    """Return the sums over texts of angle / pi between any two points: ``(L + 1, L + 1)``."""
    units = torch.stack([_unit(point) for point in points])
    found = np.zeros((len(units), len(units)))
    for i in range(len(units) - 1):
        less, more = _apart(units[i], units[i + 1 :])
        angle = 2 * torch.atan2(less.sqrt(), more.sqrt()) / math.pi
        found[i, i + 1 :] = angle.sum(-1).numpy()
    return found

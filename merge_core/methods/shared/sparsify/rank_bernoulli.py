"""The pruning of DELLA: the larger an entry in its row, the more probably it stays."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

from merge_core.contract import Block, Inputs, Param, Prepared, Tensor, required
from merge_core.errors import ParameterError
from merge_core.methods.shared.sparsify.bernoulli import flipped, words
from merge_core.methods.shared.sparsify.rule import PART, Rule
from merge_core.numerics.bernoulli import kept

COINS = 2.0**32  # different ones, half of them below zero
SPREAD = "how far the keep probability of the smallest and largest entries is from density"
EPSILON = Param("epsilon", SPREAD, low=0, high=0.3, default=0.15, minimum=0, maximum=0.5)


def drop_by_rank(delta: Tensor, density: float, epsilon: float, key: int) -> Tensor:
    """Return ``m * delta`` with ``m ~ Bernoulli(p)``, ``p`` rising with the rank of ``|delta|``.

    In each row ``p`` runs evenly from ``density - epsilon``, the smallest entry, to ``density +
    epsilon``, the largest; equals rank by index, an entry alone has ``density``. Density 1 keeps
    all, density 0 none.

    Args:
        delta: ``(*shape)`` float32, of one dimension or more; rows run along the second, or a
            vector is one row.
        density: In [0, 1].
        epsilon: Below ``density`` and ``1 - density`` where neither is 0.
        key: Of the mask.

    Source: DELLA, arXiv:2406.11617, MagPrune.
    """
    if density in (0, 1):
        return delta * density
    axis = min(delta.dim() - 1, 1)
    last = delta.shape[axis] - 1
    ranks = delta.abs().argsort(dim=axis, stable=True).argsort(axis)  # 0 is the smallest
    chance = density + epsilon * (2 * ranks.double() - last) / max(last, 1)
    return delta * kept(key, chance.flatten(), delta.numel()).view_as(delta)


def _find(inputs: Inputs) -> Prepared:
    """Return every entry's rank, and what makes the highest coin of it with which it stays.

    Raises:
        ParameterError: ``density - epsilon`` or ``density + epsilon`` is not in (0, 1).
    """
    middles, spreads = [], []
    for share, spread in zip(inputs.numbers("density"), inputs.numbers("epsilon"), strict=True):
        part = 0 < share < 1
        if part and not (share - spread > 0 and share + spread < 1):
            raise ParameterError(
                f"density - epsilon and density + epsilon must be in (0, 1), got density {share} "
                f"and epsilon {spread}"
            )
        middles.append((share - 0.5) * COINS if share < 1 else COINS)
        spreads.append(spread * COINS if part else 0.0)
    models = range(len(inputs.models))
    ranks = [inputs.remembered("ranks", [i], partial(_ranks, inputs, i)) for i in models]
    numbers = {"middle": middles, "spread": spreads}
    return Prepared(numbers, words=words(inputs), arrays={"rank": ranks})


def _ranks(inputs: Inputs, i: int) -> Tensor:
    """Return where ``|d_i|`` stands in its row: evenly from -1, the smallest, to 1, the largest.

    ``(*shape)`` float16, so that a study keeps half of what it would: rounded, by at most
    ``2**-12``, in which a keep probability may be off by epsilon times that.
    """
    import torch

    base = required(inputs.base)
    found = torch.empty_like(base, dtype=torch.float16, memory_format=torch.contiguous_format)
    if found.numel() == 0:
        return found
    rows, width = (1, base.numel()) if base.dim() < 2 else base.shape[:2]
    model, base, table = (x.reshape(rows, width, -1) for x in (inputs.models[i], base, found))
    even = torch.linspace(-1, 1, width, dtype=torch.float64) if width > 1 else torch.zeros(1)
    standing = even.to(found).reshape(-1, 1)
    for part in _parts(rows, width, table.shape[2]):
        sizes = (model[part].float() - base[part].float()).abs_()
        order = sizes.sort(dim=1, stable=True).indices
        table[part] = table[part].scatter(1, order, standing.expand(order.shape))
    return found


def _parts(rows: int, width: int, depth: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield parts of ``(rows, width, depth)``, rows whole and of about ``PART`` entries in all."""
    deep = max(1, min(depth, PART // width))
    high = max(1, PART // (width * deep))
    for row, place in product(range(0, rows, high), range(0, depth, deep)):
        yield slice(row, row + high), slice(None), slice(place, place + deep)


def _limit(block: Block, i: int) -> Tensor:
    """Return below which coin each entry of model ``i`` stays, from its rank: float32."""
    spread, middle = block.numbers["spread"][i], block.numbers["middle"][i]
    return block.arrays["rank"][i].float() * spread + middle


def _drops(block: Block, i: int, delta: Tensor) -> Tensor:
    return flipped(block, i).float() >= _limit(block, i)


def _chance(block: Block, i: int) -> Tensor:
    return (_limit(block, i) / COINS + 0.5).clamp(max=1)


RANK_BERNOULLI = Rule("ranks", _find, _drops, _chance)

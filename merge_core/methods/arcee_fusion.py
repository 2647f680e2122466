"""Takes over the entries that changed most in rows whose distribution changed most."""

from __future__ import annotations

import math
from collections.abc import Iterator

from merge_core.contract import Block, Inputs, Method, Prepared, Tensor, required
from merge_core.kernels.eager import row_blocks
from merge_core.numerics.order_statistics import ranked


def _prepare(inputs: Inputs) -> Prepared:
    divergence, least = inputs.remembered("importance", [0], lambda: _importance(inputs))
    return Prepared({"least": [least]}, rows={"divergence": [divergence]})


def _importance(inputs: Inputs) -> tuple[Tensor, float]:
    """Return each row's divergence, and the least importance that is taken over.

    Quantiles are exact at every size; mergekit samples above a million entries.
    """
    import torch

    found = [_divergence(block) for block in row_blocks(inputs, Prepared())]
    divergence = torch.cat(found) if found else inputs.models[0].new_zeros(0, 1).float()

    def sizes() -> Iterator[Tensor]:
        for block in row_blocks(inputs, Prepared(rows={"divergence": [divergence]})):
            yield _sizes(block)

    last = inputs.models[0].numel() - 1
    places = [max(0, math.floor(share * last)) for share in (0.25, 0.5, 0.75)]
    low, middle, high = (cut.threshold for cut in ranked(sizes, places, first_equal_last=False))
    return divergence, middle + 1.5 * (high - low)


def _divergence(block: Block) -> Tensor:
    """Return ``(rows, 1)``."""
    p = block.models[0].softmax(-1) + 1e-8
    q = required(block.base).softmax(-1) + 1e-8
    return (p.double() * (p / q).log().double()).sum(-1, keepdim=True).float()


def _sizes(block: Block) -> Tensor:
    """Return the importance of a block's entries; below 0 only by rounding, so 0 there."""
    return (block.deltas()[0].abs() * block.numbers["divergence"][0]).clamp(min=0)


def _entry(block: Block) -> Tensor:
    (delta,) = block.deltas()
    return required(block.base) + delta * (_sizes(block) >= block.numbers["least"][0]).float()


def reference(inputs: Inputs) -> Tensor:
    """Return the base with the entries of high importance taken over, in float32."""
    (delta,), base = inputs.deltas(), required(inputs.base).float()
    p, q = inputs.models[0].float().softmax(-1) + 1e-8, base.softmax(-1) + 1e-8
    divergence = (p.double() * (p / q).log()).sum(-1, keepdim=True).float()
    importance = (delta.abs() * divergence).clamp(min=0)
    ordered, last = importance.flatten().sort().values, delta.numel() - 1
    low, middle, high = (ordered[math.floor(share * last)] for share in (0.25, 0.5, 0.75))
    return base + delta * (importance >= middle + 1.5 * (high - low))


METHOD = Method(
    name="arcee_fusion",
    reference=reference,
    formula="D = KL(softmax(W_1) || softmax(W_b)) of each row, the softmax along the last axis\n"
    "s = |d_1| D of each entry, Q = its quartiles: the sorted entries at floor(q (n - 1))\n"
    "out = W_b + d_1 [s >= Q_2 + 1.5 (Q_3 - Q_1)]",
    about=(
        "Fusion, from Arcee AI, takes over from the second model only what matters. An entry's "
        "importance is the size of its change times the divergence between the softmaxes of its "
        "row in both models; the entries whose importance is an outlier upwards, by the "
        "quartiles' rule of box plots, are taken whole, and all others stay at the base. It is a "
        "threshold that each tensor finds by itself."
    ),
    when="To take from a second model only the few entries that changed it most, and keep the base "
    "elsewhere; there is nothing to tune.",
    prepare=_prepare,
    entry=_entry,
    params=(),
    base="required",
    models=(2, 2),
    source="https://arcee.ai",
    once_ns=15,
)

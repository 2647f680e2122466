"""Moves the base towards another model where the two are close, and hardly where they are not."""

from __future__ import annotations

from merge_core.contract import Block, Inputs, Method, Prepared, Tensor, required, shared


def _entry(block: Block) -> Tensor:
    import torch

    base, model = required(block.base), block.models[0]
    apart = (base - model).abs().clamp(min=1e-6)
    # a number over a tensor is a product with its reciprocal to torch, but not to its compiler
    share = (torch.ones_like(apart) * block.numbers["t"][0] / apart).clamp(0, 1)
    return model * share + base * (1 - share)


def reference(inputs: Inputs) -> Tensor:
    """Return the nearer of the two models' entries, in float64."""
    base, model = required(inputs.base).double(), inputs.models[0].double()
    share = (inputs.number("t") / (model - base).abs().clamp(min=1e-6)).clamp(0, 1)
    return share * model + (1 - share) * base


METHOD = Method(
    name="nearswap",
    reference=reference,
    formula="s = min(1, t / max(|d_1|, 1e-6)) of each entry\nout = s W_1 + (1 - s) W_b",
    about=(
        "Goes from the base towards the other model by at most t in each weight: a weight that "
        "differs by less than t is taken over, one that differs by more keeps to the base but for "
        "t (Alchemonaut, of QuartetAnemoi-70B). The larger a difference, the smaller the share of "
        "it that comes through. So two models that agree nearly everywhere are blended there, and "
        "where they differ the base decides."
    ),
    when="To colour a good base with a second model: entries within t of the base are taken over, "
    "others move by t at most, so what the base alone knows stays.",
    prepare=lambda inputs: Prepared({"t": [inputs.number("t")]}),
    entry=_entry,
    params=(
        shared("t", "distance below which an entry is taken over", 0, 0.01, minimum=0, start=0.001),
    ),
    base="required",
    models=(2, 2),
    source="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
)

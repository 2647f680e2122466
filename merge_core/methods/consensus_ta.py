"""Adds task vectors only where several models need the entry: TALL masks and their consensus."""

from __future__ import annotations

from merge_core.contract import Block, Inputs, Method, Param, Prepared, Tensor, required, shared
from merge_core.methods.shared.task_vectors import LAMBDA, WEIGHT
from merge_core.methods.shared.weighted_sum import summed, weighted

REACH = "how much of the others' change a model's own must reach to be in its mask"
AGREEMENT = "least number of masks that an entry must be in; whole"


def _prepare(inputs: Inputs) -> Prepared:
    numbers = {name: inputs.numbers(name) for name in ("weight", "tall_lambda")}
    agreement, share = round(inputs.number("agreement")), inputs.number("lambda")
    return Prepared({**numbers, "agreement": [agreement], "share": [share]})


def _entry(block: Block) -> Tensor:
    deltas, numbers = block.deltas(), block.numbers
    total = weighted(deltas, numbers["weight"])
    pairs = zip(deltas, numbers["tall_lambda"], strict=True)
    masks = summed(
        [(delta.abs() >= (total - delta).abs() * factor).float() for delta, factor in pairs]
    )
    stays = (masks >= numbers["agreement"][0]).float()
    return total * stays * numbers["share"][0] + required(block.base)


def reference(inputs: Inputs) -> Tensor:
    """Mask, count the masks that an entry is in, and add where enough agree."""
    import torch

    deltas, weights = inputs.deltas(), inputs.numbers("weight")
    total = summed([w * delta for w, delta in zip(weights, deltas, strict=True)])
    pairs = zip(deltas, inputs.numbers("tall_lambda"), strict=True)
    masks = torch.stack([delta.abs() >= share * (total - delta).abs() for delta, share in pairs])
    consensus = masks.sum(0) >= round(inputs.number("agreement"))
    return required(inputs.base).float() + inputs.number("lambda") * total * consensus


METHOD = Method(
    name="consensus_ta",
    prepare=_prepare,
    entry=_entry,
    params=(
        WEIGHT,
        Param("tall_lambda", REACH, low=0.2, high=0.6, minimum=0, default=0.4),
        shared("agreement", AGREEMENT, 1, 4, minimum=1, default=2),
        LAMBDA,
    ),
    base="required",
    models=(2, None),
    source="arXiv:2405.07813",
    formula=(
        "m_i = [|d_i| >= tall_lambda_i |d - d_i|], d = sum_i weight_i d_i\n"
        "out = W_b + lambda d [sum_i m_i >= agreement]"
    ),
    about=(
        "Consensus task arithmetic (Wang et al., 2024) asks of each entry which tasks need it. A "
        "model's TALL mask has the entries where its own change is at least tall_lambda times "
        "what all others together change there. Entries that are in fewer masks than agreement "
        "are set back to the base, whatever the sum says: those that one task alone needs disturb "
        "the others, those that none needs disturb all. The rest of the weighted sum stays as it "
        "is."
    ),
    when=(
        "Many tasks: what a sum loses then is mostly due to entries that one task alone needs "
        "(selfish) or none (catastrophic); with agreement 2 these go."
    ),
    reference=reference,
)

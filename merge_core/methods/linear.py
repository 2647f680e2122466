"""Weighted mean of models ("model soup")."""

from __future__ import annotations

from merge_core.contract import Block, Inputs, Method, Param, Prepared, Tensor, flag
from merge_core.errors import ParameterError
from merge_core.methods.shared.weighted_sum import weighted


def _prepare(inputs: Inputs) -> Prepared:
    weights = inputs.numbers("weight")
    total = sum(weights)
    normalized = bool(inputs.shared["normalize"])
    if normalized and abs(total) < 1e-8:
        raise ParameterError(
            f"the weights of 'linear' sum to {total:g} and cannot be normalized; got {weights}. "
            f"Set normalize: false or other weights"
        )
    return Prepared({"weight": weights, "total": [total]}, (normalized,))


def _entry(block: Block) -> Tensor:
    out = weighted(block.models, block.numbers["weight"])
    return out / block.numbers["total"][0] if block.flags[0] else out


def reference(inputs: Inputs) -> Tensor:
    """Return the weighted mean in float64."""
    weights = inputs.numbers("weight")
    total = weighted([model.double() for model in inputs.models], weights)
    return total / sum(weights) if inputs.shared["normalize"] else total


METHOD = Method(
    name="linear",
    reference=reference,
    formula="out = sum_i weight_i W_i, divided by sum_i weight_i where normalize is true",
    about=(
        "Each weight of the result is the weighted mean of that weight in all models, as in Model "
        "soups (Wortsman et al., 2022). Models that were tuned from one base mostly lie in one "
        "basin of the loss, so that the points between them are good, too. The base is no "
        "reference here: where it is listed, it is one more model. With normalize: false it is a "
        "plain weighted sum, whose length changes with the sum of the weights."
    ),
    when="The first to try with models tuned from one base: a mean of weights needs no tuning, and "
    "is often better than each of them.",
    prepare=_prepare,
    entry=_entry,
    passes_on=lambda values: values["weight"] == 1,  # normalized or not
    params=(
        Param("weight", "factor on the model's weights", low=0, high=1, start=1, smooth=True),
        flag("normalize", "divide by the sum of the weights", default=True),
    ),
    base="none",
    models=(1, None),
    source="arXiv:2203.05482",
)

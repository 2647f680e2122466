"""One model as it is, times a factor: what layer stacking is made of."""

from __future__ import annotations

from merge_core.contract import Block, Inputs, Method, Param, Prepared, Tensor


def _entry(block: Block) -> Tensor:
    return block.models[0] * block.numbers["scale"][0]


def reference(inputs: Inputs) -> Tensor:
    """Return the scaled model in float64."""
    return inputs.models[0].double() * inputs.numbers("scale")[0]


METHOD = Method(
    name="passthrough",
    reference=reference,
    formula="out = scale W_1",
    about=(
        "Takes the tensors of one model as they are, or times a factor. Alone it copies a model; "
        "with slices it stacks layers of one or several models into a deeper or a shallower one, "
        "as SOLAR's depth up-scaling (Kim et al., 2023) and the self-made giants of the hub do. A "
        "scale of 0 on o_proj and down_proj turns a layer into none, since only the residual "
        "stream goes through."
    ),
    when="To stack layers of one model or several into a deeper one (with slices), or to copy a "
    "model tensor by tensor, scaled where a filter says so.",
    prepare=lambda inputs: Prepared({"scale": inputs.numbers("scale")}),
    entry=_entry,
    passes_on=lambda values: values["scale"] == 1,
    params=(Param("scale", "factor on the model's weights", low=0, high=2, default=1.0),),
    base="none",
    models=(1, 1),
    source="arXiv:2312.15166",
)

"""Adds weighted task vectors to the base: addition, and with negative weights forgetting."""

from __future__ import annotations

from functools import partial

from merge_core.contract import Inputs, Method, Tensor
from merge_core.methods.shared.task_vectors import (
    INT8_MASK,
    LAMBDA,
    WEIGHT,
    add,
    entry,
    normalize,
    prepared,
)


def reference(inputs: Inputs) -> Tensor:
    """Weigh and add."""
    pairs = zip(inputs.numbers("weight"), inputs.deltas(), strict=True)
    return add(inputs, [weight * delta for weight, delta in pairs])


METHOD = Method(
    name="task_arithmetic",
    prepare=partial(prepared, elects=False),
    entry=entry,
    params=(WEIGHT, normalize(False), LAMBDA, INT8_MASK),
    base="required",
    models=(1, None),
    source="arXiv:2212.04089",
    formula="out = W_b + lambda sum_i weight_i d_i (normalize: / sum_i weight_i)",
    about=(
        "A task vector is what fine-tuning changed: the model minus its base. Task vectors can be "
        "added to teach the base several tasks, subtracted to make it forget one, and combined by "
        "analogy (Ilharco et al., 2022). Here each is multiplied by its weight, and the sum by "
        "lambda. Nothing is dropped and no sign decides, so what the models disagree on cancels "
        "out."
    ),
    when=(
        "The first to try with models fine-tuned from one base, and what others must beat. A "
        "negative weight makes the model forget what the task vector taught."
    ),
    reference=reference,
)

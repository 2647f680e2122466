"""A method called on plain tensors, with its parameters as keywords."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from merge_core.contract import Inputs, Method
from merge_core.kernels import run
from merge_core.kernels.eager import flat_blocks
from merge_core.methods.shared.sparsify.largest import LARGEST
from merge_core.methods.shared.sparsify.middle import MIDDLE
from merge_core.methods.shared.sparsify.rank_bernoulli import RANK_BERNOULLI
from merge_core.methods.shared.sparsify.rule import Rule, chosen, terms


def inputs_for(method: Method, base: Tensor | None, models: list[Tensor], **given: Any) -> Inputs:
    """Take defaults, weight 1, and what is given: a list is one value for each model."""
    keys = given.pop("keys", range(1, len(models) + 1))
    values: list[dict[str, Any]] = [{} for _ in models]
    shared: dict[str, Any] = {}
    for param in method.params:
        value = given.pop(param.name if param.name != "lambda" else "lambda_", param.default)
        if param.scope == "shared":
            shared[param.name] = value
            continue
        each = value if isinstance(value, list) else [value] * len(models)
        for own, x in zip(values, each, strict=True):
            own[param.name] = 1.0 if x is None else x
    assert not given, f"{method.name} has no {sorted(given)}"
    return Inputs(models, base, values, shared, list(keys))


def merge(method: Method, base: Tensor | None, models: list[Tensor], **given: Any) -> Tensor:
    return run.merge(method, inputs_for(method, base, models, **given))


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def random_models(
    n: int = 1000, count: int = 3, seed: int = 0, spread: float = 0.1
) -> tuple[Tensor, list[Tensor]]:
    """A base of about 1 and models ``spread`` away from it."""
    stream = torch.Generator().manual_seed(seed)
    base = torch.randn(n, generator=stream)
    return base, [base + spread * torch.randn(n, generator=stream) for _ in range(count)]


def shares(delta: Tensor, rule: Rule, key: int = 1, **values: float) -> Tensor:
    """What share of every entry of a task vector a rule keeps, with these parameters."""
    defaults = {"gamma": 0.0, "epsilon": 0.15}
    inputs = Inputs([delta], torch.zeros_like(delta), [{**defaults, **values}], {}, [key])
    parts = [part for _, part in chosen(inputs, rule, 0)]
    return torch.cat(parts).reshape(delta.shape) if parts else delta.new_zeros(delta.shape)


def largest(delta: Tensor, density: float) -> Tensor:
    return shares(delta, LARGEST, density=density) > 0


def middle(delta: Tensor, density: float, gamma: float) -> Tensor:
    return shares(delta, MIDDLE, density=density, gamma=gamma) > 0


def probabilities(delta: Tensor, density: float, epsilon: float) -> Tensor:
    return shares(delta, RANK_BERNOULLI, density=density, epsilon=epsilon)


def sparse_deltas(method: Method, base: Tensor, models: list[Tensor], **given: Any) -> list[Tensor]:
    """The task vectors as the method adds them up, each times its rescale and weight."""
    inputs = inputs_for(method, base, models, **given)
    assert method.prepare is not None
    prepared = method.prepare(inputs)
    rule = prepared.flags[0]
    factors = prepared.numbers["factor"]
    parts = [terms(block, rule, factors) for block in flat_blocks(inputs, prepared)]
    return [torch.cat([part[i] for part in parts]).reshape(base.shape) for i in range(len(models))]

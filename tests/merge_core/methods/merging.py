"""A method called on plain tensors, with its parameters as keywords."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from merge_core.methods.declaration import Inputs, Method


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
    return method.merge(inputs_for(method, base, models, **given))


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def random_models(
    n: int = 1000, count: int = 3, seed: int = 0, spread: float = 0.1
) -> tuple[Tensor, list[Tensor]]:
    """A base of about 1 and models ``spread`` away from it."""
    stream = torch.Generator().manual_seed(seed)
    base = torch.randn(n, generator=stream)
    return base, [base + spread * torch.randn(n, generator=stream) for _ in range(count)]

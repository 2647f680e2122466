"""Layers' input scales as weights, for what holds weights alone: a folder, an engine of its own.

Exact is one place only: the first layer's scale times the token embedding, where the class hands
the embedding's rows to the first layer unchanged and uses them for nothing else. A norm divides by
``sqrt(mean(x^2) + eps)``, so no other weights can take a scale along, be it a power of two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from merge_core.architecture import layer_kinds
from merge_core.architecture.skeleton import loaded_type, skeleton
from merge_core.contract import Tensor
from merge_core.errors import ParameterError
from merge_core.output.live_views import stored_places
from merge_core.plan.steps import Plan

ROWS = 8  # tokens that are tried
RULE = "only a first layer's fits into weights, where its class hands it an untied embedding as is"


def factors(plan: Plan) -> Mapping[str, float]:
    """Return stored tensor -> what it is to be multiplied by in place of the input scales.

    Raises:
        ParameterError: There is a scale that no weights can take; all such are named.
    """
    scales = dict(plan.input_scales)
    first = _embedding(plan) if 0 in scales else None
    found = {} if first is None else {first: scales.pop(0)}
    if scales:
        hops = ", ".join(f"{plan.stack}.{layer} (x {x:g})" for layer, x in sorted(scales.items()))
        raise ParameterError(
            f"input_scale: weights alone cannot say what the inputs of {hops} are multiplied by: "
            f"{RULE}; score such a recipe live (engine: {{name: hf}}), or leave these scales out"
        )
    return found


def _embedding(plan: Plan) -> str | None:
    """Return the stored embedding whose rows are all that the first layer is given, or None."""
    import torch

    dtype, where = getattr(torch, plan.dtype), str(plan.parents[plan.config_from].folder)
    model = skeleton(plan.config, where, dtype, "cpu")
    module = model.get_input_embeddings()
    live = next(name for name, x in model.named_modules() if x is module) + ".weight"
    ties = model.all_tied_weights_keys
    places = {place.live: name for name, place in stored_places(model) if place.view is None}
    tied = live in {*ties, *ties.values()}
    if tied or live not in places or loaded_type(model, dtype)[live] != dtype:
        return None
    return places[live] if _passes_unchanged(model, module, str(plan.stack)) else None


def _passes_unchanged(model: Any, embedding: Any, stack: str) -> bool:
    """Tell whether the first layer gets an embedding's rows, as they are and once; by trying."""
    import torch

    stream = torch.Generator().manual_seed(0)
    rows = torch.randn((ROWS, embedding.weight.shape[1]), generator=stream)
    embedding.padding_idx = None
    embedding.weight = torch.nn.Parameter(rows.to(embedding.weight.dtype), requires_grad=False)
    seen: list[Any] = []

    def look(_: Any, args: Any, named: Any) -> None:
        seen.extend((args, named))
        raise _ReachedError

    layer_kinds.modules(model, stack)[0].register_forward_pre_hook(look, with_kwargs=True)
    ids = torch.arange(ROWS)[None]
    try:
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
    except _ReachedError:
        wanted = embedding.weight[ids]
        return sum(_equal(x, wanted) for x in _tensors(seen)) == 1
    except Exception:  # other weights ahead of the layers are not there: it gets no plain embedding
        return False
    return False


class _ReachedError(Exception):
    """The first layer is called."""


def _equal(x: Tensor, wanted: Tensor) -> bool:
    same = x.shape == wanted.shape and x.dtype == wanted.dtype and not x.is_meta
    return same and bool(x.equal(wanted))


def _tensors(data: Any) -> Iterator[Tensor]:
    """Yield the tensors among arguments."""
    import torch

    if isinstance(data, torch.Tensor):
        yield data
    elif isinstance(data, dict):
        yield from _tensors([*data.values()])
    elif isinstance(data, list | tuple):
        for part in data:
            yield from _tensors(part)

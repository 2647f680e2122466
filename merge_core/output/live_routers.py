"""Learning the routers of a live mixture of experts, also where the choice among experts is hard.

A router gives a token the weights ``w`` of the ``k`` experts that it is sent to, made of scores of
all experts (a softmax of the logits, or their sigmoids); often they are divided by their sum. So
the loss does not change with the logits of other experts, and with ``k = 1`` and such a division
with no logit at all. Inside ``every_row_learns`` the forward pass stays what it is, and the
backward pass sees a mixture of all experts (straight through; Bengio, Leonard and Courville,
arXiv:1308.3432), with ``s`` the scores over their sum:

    w_i + c (s_i - stop(s_i))        c = stop(sum of w / sum of s over the chosen)

With ``k`` equal to the number of experts that is the loss's own gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from merge_core.contract import Tensor
from merge_core.errors import ParameterError


@contextmanager
def every_row_learns(model: Any, routers: Mapping[str, Any]) -> Iterator[None]:
    """Give every row of a model's routers a gradient inside.

    Args:
        model: A transformers model.
        routers: Stored name -> parameter ``(experts, hidden)``; others among them are left alone,
            such as the gate of a shared expert, which is no choice.

    Raises:
        ParameterError: By ``backward``'s forward pass, where a router of the class chooses
            otherwise.
    """
    ours = {id(parameter) for parameter in routers.values() if parameter.shape[0] > 1}
    owners = [x for x in model.modules() if ours & {id(p) for p in x.parameters(recurse=False)}]
    handles = [owner.register_forward_hook(_spread(type(model).__name__)) for owner in owners]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _spread(name: str) -> Callable[[Any, Any, Any], Any]:
    """Return a hook that sends every token to all experts, those not chosen with weight 0."""

    def spread(module: Any, inputs: Any, output: Any) -> Any:
        import torch

        if not torch.is_grad_enabled():
            return output
        logits, weights, chosen = _parts(output, name)
        shares, factor = _shares(logits.float(), weights.float(), chosen, name)
        given = torch.zeros_like(shares).scatter(-1, chosen, weights.detach().float())
        learnt = given + factor.detach() * (shares - shares.detach())
        everyone = torch.arange(shares.shape[-1], device=chosen.device).expand_as(shares)
        return logits, learnt.to(weights.dtype), everyone.to(chosen.dtype)

    return spread


def _parts(output: Any, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a router gives: logits, and weights and numbers of the chosen experts."""
    if not isinstance(output, tuple) or len(output) != 3 or output[2].is_floating_point():
        raise ParameterError(_other(name))
    return output


def _shares(logits: Tensor, weights: Tensor, chosen: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Return scores that add up to 1, and what those of the chosen times that give the weights."""
    import torch

    for scores in (logits.softmax(-1), logits.sigmoid()):
        shares = scores / scores.sum(-1, keepdim=True)
        taken = shares.gather(-1, chosen)
        factor = weights.sum(-1, keepdim=True) / taken.sum(-1, keepdim=True)
        if torch.allclose(factor * taken, weights, rtol=0.02, atol=1e-6):
            return shares, factor
    raise ParameterError(_other(name))


def _other(name: str) -> str:
    return (
        f"the routers of {name} cannot be trained here: they give no weights that are those of a "
        "softmax or of sigmoids; use gate_mode: hidden"
    )

"""Sequences that are right only if they are read alone and whole.

Some models place a token by how long its whole sequence is: with ``longrope`` the positions of all
tokens are others once there are more than were in pretraining. Read in steps, the first tokens
would be placed by a length that is not theirs; in a batch, by that of the longest row.

    read so far <= limit    positions of short sequences, whatever the step
    a sequence > limit      positions of long ones for all of its tokens: one pass, one sequence

An answer that grows past the limit is read anew from there, as transformers does for Phi-3.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from evaluators.engines.encoding import Ask, Ids
from evaluators.engines.stopping import Watch
from evaluators.engines.token_engine import NO_CHOICE
from merge_core.errors import NonFiniteError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def step_limit(config: PretrainedConfig) -> int | None:
    """Return how many tokens a model may read in steps; None where the number does not matter."""
    text = config.get_text_config()
    limits = _limits(getattr(text, "rope_parameters", None) or {}, text)
    return min(limits, default=None)


def _limits(rope: Mapping[str, Any], config: PretrainedConfig) -> list[int]:
    """Collect what a config says of rotary positions, which may differ between kinds of layers."""
    found = [x for part in rope.values() if isinstance(part, dict) for x in _limits(part, config)]
    kind = str(rope.get("rope_type", ""))
    if kind == "longrope" or "dynamic" in kind:
        named = rope if kind == "longrope" else {}  # `dynamic` goes by the model's own window
        names = ("original_max_position_embeddings", "max_position_embeddings")
        told = [named.get(names[0]), *(getattr(config, name, None) for name in names)]
        found.append(next(int(x) for x in told if x is not None))
    return found


def length(ask: Ask) -> int:
    """Return the tokens that are read for an ask: all but the last."""
    return len(ask.context) + len(ask.continuation) - 1


def loglikelihoods(model: PreTrainedModel, asks: Sequence[Ask]) -> list[tuple[float, bool]]:
    """Return ``(nats, greedy)`` per ask, in their order; what is read alike is read once."""
    alike: dict[bytes, list[int]] = defaultdict(list)
    read = [np.concatenate([ask.context, ask.continuation[:-1]]) for ask in asks]
    for i, ids in enumerate(read):
        alike[ids.tobytes()].append(i)
    answers: dict[int, tuple[float, bool]] = {}
    for twins in alike.values():
        most = max(len(asks[i].continuation) for i in twins)
        logs = _logits(model, read[twins[0]], most).log_softmax(-1)
        for i in twins:
            n = len(asks[i].continuation)
            wanted = torch.from_numpy(asks[i].continuation.astype(np.int64)).to(logs.device)
            nats = logs[-n:].gather(-1, wanted[:, None])[:, 0].double().sum()
            best = bool((logs[-n:].argmax(-1) == wanted).all())
            answers[i] = float(nats.to(logs.dtype)), best
    return [answers[i] for i in range(len(asks))]


def answer(model: PreTrainedModel, ids: Ids, watch: Watch, most: int, limit: int) -> list[int]:
    """Write the greedy answer to one prompt, of ``most`` tokens at most.

    Raises:
        NonFiniteError: A token was to be chosen from logits that are NaN or infinite.
    """
    written: list[int] = []
    cache: Any = None
    while len(written) < most:
        read = [*ids.tolist(), *written]
        if cache is None or len(read) == limit + 1:
            feed, cache = read, None
        else:
            feed = read[-1:]
        with torch.no_grad():
            out = model(
                input_ids=torch.tensor([feed], device=model.device),
                past_key_values=cache,
                use_cache=True,
            )
        cache, logits = out.past_key_values, out.logits[0, -1]
        chosen = int(logits.argmax())
        if not torch.isfinite(logits[chosen]):
            raise NonFiniteError(NO_CHOICE)
        written.append(chosen)
        if watch.ended([0], [written]):
            break
    return written


def _logits(model: PreTrainedModel, ids: Ids, last: int) -> Tensor:
    """Return the logits after the last tokens of one sequence: (last, vocabulary)."""
    few = "logits_to_keep" in inspect.signature(model.forward).parameters
    with torch.no_grad():
        out: Any = model(
            input_ids=torch.from_numpy(ids.astype(np.int64))[None].to(model.device),
            use_cache=False,
            **({"logits_to_keep": last} if few else {}),
        )
    logits: Tensor = out.logits[0, -last:]
    return logits

"""What a model makes of prompts: a vector for each layer, which a router's row is.

As mergekit-moe does it: the model reads in bfloat16, and what follows is computed in it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from merge_core.architecture import model_class
from merge_core.architecture.refused_config import said
from merge_core.contract import Tensor
from merge_core.errors import CheckpointError, ParameterError
from merge_core.kernels.threads import one_thread
from merge_core.parents.protocol import Parent
from merge_core.tokenizer import parent_tokenizer

EMBEDDING = "model.embed_tokens.weight"
LEAST = 1e-8  # length of a vector, below which it is not scaled to 1

Prompts = tuple[str, ...]
Key = tuple[str, Prompts, Prompts]  # gate mode, positive and negative prompts

_KEPT: WeakKeyDictionary[Parent, dict[Key, Tensor]] = WeakKeyDictionary()


class Batch(NamedTuple):
    """Prompts of one expert as token ids, padded on the left."""

    ids: Tensor  # (n, longest)
    mask: Tensor  # (n, longest), 1 for a token


def vectors(parent: Parent, keys: Sequence[Key], layers: int) -> list[Tensor]:
    """Return ``(layers, hidden)`` for each key: unit vectors, kept as long as the parent is open.

    A row is the mean over positive prompts minus that over negative ones, scaled to length 1: of
    the hidden states that go into a layer, at the last token (``hidden``) or averaged over all
    tokens (``hidden_avg``; mergekit averages over padding, too); or of the sum of the tokens'
    embeddings, the same for all layers (``cheap_embed``).

    Raises:
        CheckpointError: The parent has no tokenizer, or transformers cannot run it.
        ParameterError: A prompt has no token.
    """
    kept = _KEPT.setdefault(parent, {})
    missing = [key for key in dict.fromkeys(keys) if key not in kept]
    if missing:
        tokenizer = parent_tokenizer.load(parent.folder)
        read = _Reader(parent, tokenizer, layers)
        for key in missing:
            kept[key] = read.vector(key)
    return [kept[key] for key in keys]


class _Reader:
    """One model that reads prompts; it is made when it is first needed."""

    def __init__(self, parent: Parent, tokenizer: Any, layers: int) -> None:
        self._parent, self._tokenizer, self._layers = parent, tokenizer, layers
        self._model: Any = None

    def vector(self, key: Key) -> Tensor:
        import torch

        mode, positive, negative = key
        with torch.no_grad(), one_thread():  # several round otherwise
            found = self._states(mode, positive)
            if negative:
                found = found - self._states(mode, negative)
            return _unit(found)

    def _states(self, mode: str, prompts: Prompts) -> Tensor:
        batch = _batch(self._tokenizer, prompts, self._parent)
        if mode == "cheap_embed":
            return self._embedded(batch)
        if self._model is None:
            self._model = _loaded(self._parent)
        read = self._model(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            output_hidden_states=True,
            use_cache=False,
        )
        return _summed(mode, read.hidden_states[: self._layers], batch.mask)

    def _embedded(self, batch: Batch) -> Tensor:
        rows = self._parent.tensor(EMBEDDING).cpu()
        if int(batch.ids.max()) >= len(rows):
            raise CheckpointError(
                f"{self._parent.where}: its tokenizer gives ids up to {int(batch.ids.max())}, its "
                f"embedding has {len(rows)} rows; fetch it again, or resize the embedding"
            )
        masked = rows[batch.ids].float() * batch.mask.unsqueeze(-1)
        total = masked.sum(dim=1).sum(dim=0, keepdim=True)
        return _unit(total).repeat(self._layers, 1)


def _unit(rows: Tensor) -> Tensor:
    """Return ``(n, hidden)`` scaled to length 1."""
    length: Tensor = rows.norm(p=2, dim=-1, keepdim=True)
    return rows / length.clamp(min=LEAST)


def _summed(mode: str, states: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Return ``(layers, hidden)`` of ``(prompts, tokens, hidden)`` for each layer."""
    import torch

    every = torch.stack(list(states))
    if mode == "hidden":
        last = every[:, :, -1, :]
    else:
        counted = mask.to(every.dtype)
        last = (every * counted[None, :, :, None]).sum(dim=2) / counted.sum(dim=1)[None, :, None]
    return last.sum(dim=1) / last.shape[1]


def _batch(tokenizer: Any, prompts: Prompts, parent: Parent) -> Batch:
    """Return prompts as ids, with the beginning token if there is one; padded on the left."""
    import torch

    start = tokenizer.bos_token or ""
    rows = [tokenizer(start + text, add_special_tokens=False)["input_ids"] for text in prompts]
    empty = [text for text, row in zip(prompts, rows, strict=True) if not row]
    if empty:
        raise ParameterError(
            f"moe.experts: the tokenizer of {parent.where} makes no token of the prompt "
            f"{empty[0]!r}; give another"
        )
    pad = next((x for x in (tokenizer.bos_token_id, tokenizer.eos_token_id) if x is not None), 0)
    longest = max(map(len, rows))
    ids = [[pad] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return Batch(torch.tensor(ids), torch.tensor(mask))


def _loaded(parent: Parent) -> Any:
    """Return a parent as a live model in bfloat16, whatever kind of parent it is."""
    import torch

    config = model_class.checked(parent.config, parent.where)
    weights = {
        name: parent.tensor(name).to("cpu", torch.bfloat16)
        for name in parent.tensors
        if parent.architecture.reason_to_drop(name, parent.tensors) is None
    }
    try:
        model = model_class.model_class(config).from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=torch.bfloat16,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:  # transformers has no class of its own for what it raises
        raise CheckpointError(
            f"{parent.where}: transformers cannot load it: {said(error)}"
        ) from error
    return model.eval()

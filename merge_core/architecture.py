"""What transformers knows of a model class: tied tensors, and stored ones it does not load."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from merge_core.errors import CheckpointError

# Buffers that old checkpoints store for every layer (Llama 2, Pythia) and today's classes compute;
# transformers leaves them aside for all classes that have such a buffer.
ONCE_STORED = {
    "rotary_emb.inv_freq": r"rotary_emb\.inv_freq",
    "position_ids": r"(^|\.)position_ids$",
}


@dataclass(frozen=True)
class Architecture:
    """Facts of a model class, read without making its weights.

    Args:
        tied: Tensor name -> the name whose weights it shares.
        not_loaded: Patterns of stored tensors that the class leaves aside.
    """

    tied: Mapping[str, str]
    not_loaded: tuple[str, ...] = ()

    def reason_to_drop(self, tensor: str, stored: Mapping[str, object]) -> str | None:
        """Return why a stored tensor does not go into a merge, or None if it does."""
        if self.tied.get(tensor) in stored:
            return f"tied to {self.tied[tensor]}"
        if any(re.search(pattern, tensor) for pattern in self.not_loaded):
            return "not loaded by the model class"
        return None


def read(folder: Path) -> Architecture:
    """Read the facts for the causal language model in ``folder``; no weights are made.

    Raises:
        CheckpointError: transformers has no causal language model class for its config.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except (ValueError, KeyError, OSError, StrictDataclassError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{folder}: no causal language model: {first}") from error
    patterns = set(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
    patterns |= {
        pattern
        for buffer, pattern in ONCE_STORED.items()
        if any(name.endswith(buffer) for name, _ in model.named_buffers())
    }
    return Architecture(dict(model.all_tied_weights_keys), tuple(sorted(patterns)))

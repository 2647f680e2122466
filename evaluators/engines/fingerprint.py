"""What decides an engine's answers besides the weights, as a digest."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from evaluators.protocol import canonical

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash what decides a text's token ids; padding is set anew at every call and left out."""
    facts: list[object] = [sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map]
    core = getattr(tokenizer, "backend_tokenizer", None)  # absent in tokenizers written in Python
    if core is not None:
        rules = json.loads(core.to_str())
        facts.append({k: v for k, v in rules.items() if k not in ("padding", "truncation")})
    return hashlib.sha256(canonical(facts)).hexdigest()

"""The tokenizer that is inside a GGUF file, as transformers makes it, and two things set right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merge_core.errors import warn
from merge_core.json_text import read_json

TOKENS = "tokenizer.ggml.tokens"
# What llama.cpp calls the ways to split words (``llama-vocab.cpp``): as GPT-2 does, which is what
# transformers takes where it knows no name; and so, but each digit alone.
AS_GPT2 = ("default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe", "jina-es", "jina-de")
DIGITS_ALONE = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")


def write(folder: Path, name: str, file: Path, metadata: Mapping[str, Any]) -> None:
    """Write the tokenizer that transformers makes of a GGUF file.

    Args:
        folder: Has the file, alone, and gets the tokenizer.
        name: Of the file there.
        file: What messages call it.
        metadata: Of the file; a list is its length.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        folder, gguf_file=name, local_files_only=True, trust_remote_code=False
    )
    split = metadata.get("tokenizer.ggml.pre", "default")
    if metadata.get("tokenizer.ggml.model") == "gpt2":
        if split in DIGITS_ALONE:
            tokenizer.backend_tokenizer.pre_tokenizer = _digits_alone()
        elif split not in AS_GPT2 and split not in _known():
            warn(
                f"{file}: its words are split as {split!r} says, which transformers does not know: "
                "as GPT-2 does instead; put the model's tokenizer.json beside it"
            )
    tokenizer.save_pretrained(folder)
    _keep_to_vocabulary(folder / "tokenizer.json", metadata[TOKENS])


def _keep_to_vocabulary(file: Path, size: int) -> None:
    """Take away the tokens that transformers adds of its own: the model has no rows for them."""
    data = read_json(file)
    data["added_tokens"] = [token for token in data["added_tokens"] if token["id"] < size]
    file.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def _digits_alone() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _known() -> Mapping[str, str]:
    """Return the ways to split words that transformers has a pattern for; early versions none."""
    try:
        from transformers.integrations.gguf import gguf_tokenizer_mapping as mapping
    except ImportError:
        return {}
    return mapping.GGUF_PRE_TOKENIZER_SPLITS

"""A model's tokenizer in the words of GGUF: tokens by number, their kinds, merges or scores.

Source: llama.cpp's ``llama-vocab.cpp`` says what is made of them there.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_core.errors import CheckpointError
from merge_core.json_text import read_json
from merge_core.tokenizer.parent_tokenizer import has_tokenizer, open_tokenizer

NORMAL, UNKNOWN, CONTROL, OWN, UNUSED, BYTE = range(1, 7)  # ``enum llama_token_type``
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
PATTERNS = {LLAMA3: "llama-bpe", QWEN2: "qwen2"}
DIGITS_ALONE, AS_GPT2 = "smollm", "gpt-2"
IDS = ("bos", "eos", "unk", "pad")


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer; merges, or scores where the kind is ``llama``."""

    kind: str
    split: str  # how words are split, by llama.cpp's name
    tokens: list[str]
    kinds: list[int]
    merges: list[str] | None
    scores: list[float] | None
    ids: Mapping[str, int]
    begins: bool  # whether texts begin with ``bos``
    ends: bool
    space: bool  # whether a space is put before a text
    template: str | None


class NoFormError(CheckpointError):
    """A tokenizer has no form in GGUF."""


def of(folder: Path, rows: int) -> Vocabulary | None:
    """Return the vocabulary of a model folder, or None if it has no tokenizer.

    Args:
        folder: The model's.
        rows: Tokens that the model has; numbers without a token get one that nothing leads to.

    Raises:
        NoFormError: It is of a kind, or splits words in a way, that GGUF has no name for.
        CheckpointError: It cannot be read.
    """
    if not has_tokenizer(folder):
        return None
    tokenizer, data = open_tokenizer(folder), read_json(_json(folder))
    model = data.get("model", {})
    if model.get("type") != "BPE":
        raise NoFormError(f"it is a {model.get('type')}, expected a BPE")
    pieces = bool(model.get("byte_fallback"))
    words: dict[str, int] = dict(model["vocab"])
    added = {token["id"]: token for token in data.get("added_tokens", ())}
    words |= {token["content"]: i for i, token in added.items()}
    if max(words.values()) >= rows:
        raise NoFormError(f"it has tokens beyond the {rows} of the model")
    tokens = [f"[PAD{i}]" for i in range(rows)]
    kinds = [UNUSED] * rows
    for word, i in words.items():
        tokens[i] = word
        kinds[i] = _kind(word, added.get(i), tokenizer.unk_token, pieces)
    merges = [x if isinstance(x, str) else " ".join(x) for x in model["merges"]]
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in IDS}
    text = tokenizer("a")["input_ids"]
    template = tokenizer.chat_template
    return Vocabulary(
        "llama" if pieces else "gpt2",
        "default" if pieces else _split(data.get("pre_tokenizer")),
        tokens,
        kinds,
        None if pieces else merges,
        _scores(tokens, model["merges"]) if pieces else None,
        {name: i for name, i in ids.items() if i is not None},
        bool(text) and text[0] == ids["bos"],
        bool(text) and text[-1] == ids["eos"],
        pieces and _begins_with_space(data),
        template if isinstance(template, str) else None,
    )


def _json(folder: Path) -> Path:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise NoFormError("there is no tokenizer.json")
    return file


def _kind(word: str, added: Mapping[str, Any] | None, unknown: str | None, pieces: bool) -> int:
    if pieces and word == unknown:
        return UNKNOWN
    if added is not None:
        return CONTROL if added.get("special") else OWN
    byte = pieces and len(word) == 6 and word.startswith("<0x") and word.endswith(">")
    return BYTE if byte else NORMAL


def _scores(tokens: list[str], merges: list[Any]) -> list[float]:
    """Return a score for each token: the sooner it is made by a merge, the higher."""
    ranks: dict[str, int] = {}
    for i, pair in enumerate(merges):
        ranks.setdefault("".join(pair.split(" ") if isinstance(pair, str) else pair), i)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def _split(pre: Any) -> str:
    """Return llama.cpp's name for how a byte-level tokenizer splits words."""
    steps = pre.get("pretokenizers", [pre]) if isinstance(pre, dict) else []
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return AS_GPT2
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return DIGITS_ALONE
    if kinds == ["Split", "ByteLevel"]:
        pattern = steps[0].get("pattern", {}).get("Regex")
        if pattern in PATTERNS:
            return PATTERNS[pattern]
    raise NoFormError(f"it splits words in a way that has no name there: {json.dumps(pre)[:200]}")


def _begins_with_space(data: Mapping[str, Any]) -> bool:
    for step in itertools.chain(_steps(data, "normalizer"), _steps(data, "pre_tokenizer")):
        if step.get("type") == "Prepend":
            return True
        if step.get("type") == "Metaspace":
            return bool(step.get("prepend_scheme", "always") != "never")
    return False


def _steps(data: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    step = data.get(key)
    if isinstance(step, dict):
        yield step
        yield from step.get("normalizers", ())
        yield from step.get("pretokenizers", ())

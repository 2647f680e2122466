"""Tokens of other models into a ``tokenizer.json``: they get rows, and split no text otherwise.

BPE, WordLevel   an entry without merges
Unigram          an entry that costs more than its characters one by one: never on the best path
WordPiece        an entry, where it cannot be the longest one that fits a text of the first model
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merge_core.errors import CheckpointError

Added = Mapping[str, bool]  # facts of an added token


def insert(
    document: dict[str, Any],
    new: Mapping[str, Added | None],
    ids: Mapping[str, int],
    known: Mapping[str, int],
    folder: Path,
) -> None:
    """Put tokens into the contents of a ``tokenizer.json``.

    Args:
        document: Is changed.
        new: Tokens with their facts for added ones, None for ordinary ones.
        ids: Of the new tokens.
        known: Token -> id of those that it has.
        folder: Of the tokenizer, for messages.

    Raises:
        CheckpointError: This kind of tokenizer cannot take in an ordinary token.
    """
    model, entries = document["model"], document["added_tokens"]
    ordinary = [token for token, facts in new.items() if facts is None]
    added = {token: facts for token, facts in new.items() if facts is not None}
    entries += [{"id": ids[token], "content": token, **facts} for token, facts in added.items()]
    if model["type"] == "Unigram":
        if ordinary:
            _into_unigram(model, {**known, **ids}, folder)
        return
    if model["type"] == "WordPiece":
        if not ordinary:
            return
        _check_word_pieces(model, ordinary, folder)
    # added tokens too: those that are not in it get ids by the library's own count
    model["vocab"] |= {entry["content"]: entry["id"] for entry in entries}
    model["vocab"] |= {token: ids[token] for token in ordinary}


def _into_unigram(model: dict[str, Any], ids: Mapping[str, int], folder: Path) -> None:
    """Append entries up to the highest id, added tokens too: an entry's id is its place.

    Whatever path takes such an entry is beaten by the same path with the entry's characters one by
    one, which are entries of every trained vocabulary: each costs at most the lowest score.
    """
    vocab = model["vocab"]
    lowest = min([0.0, *(score for _, score in vocab)])
    by_id = {i: token for token, i in ids.items()}
    for i in range(len(vocab), max(by_id) + 1):
        if i not in by_id:
            raise CheckpointError(
                f"{folder}: its tokenizer has no token of id {i}, and a Unigram tokenizer with "
                f"gaps cannot take in tokens of other models; set tokenizer: {{source: base}}"
            )
        vocab.append([by_id[i], len(by_id[i]) * lowest - 1])


def _check_word_pieces(model: dict[str, Any], ordinary: list[str], folder: Path) -> None:
    """Refuse what would be taken where a shorter entry is today: the longest one that fits wins."""
    mark = str(model.get("continuing_subword_prefix", "##"))
    for token in ordinary:
        first = len(mark) + 1 if token.startswith(mark) else 1
        shorter = next(
            (t for n in range(first, len(token)) if (t := token[:n]) in model["vocab"]), ""
        )
        if shorter:
            raise CheckpointError(
                f"{folder}: a WordPiece tokenizer cannot take in {token!r} of another model: text "
                f"that is split into {shorter!r} and more would be split otherwise; set "
                f"tokenizer: {{source: base}}, or name the model whose tokenizer is to be taken"
            )

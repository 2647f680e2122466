"""A new vocabulary's tokens -> the rows of a model that each one's row is made of.

shared     the model has a token of the same text: its row
role       both have a token that begins, ends or pads texts, by another name: its row
subwords   the mean of the rows of the tokens into which the model's tokenizer cuts the text
mean       nothing else: the mean of the rows of all the model's tokens

The mean of subwords is that of fast vocabulary transfer (arXiv:2402.09977).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from merge_core.tokenizer.parent_tokenizer import Lexicon
from merge_core.tokenizer.token_text import TokenTexts

ROLES = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
Kind = Literal["shared", "role", "subwords", "mean"]


@dataclass(frozen=True)
class Source:
    """Where one row comes from: the mean of ``rows`` of the model, or of all for ``mean``."""

    kind: Kind
    rows: tuple[int, ...] = ()


def sources(model: Lexicon, tokenizer: Any, size: int) -> list[Source]:
    """Return where each row of a new vocabulary comes from, by its place.

    Args:
        model: What the model calls its tokens.
        tokenizer: The new one, of ids below ``size``.
        size: Rows; those without a token get the mean.
    """
    found = [Source("mean")] * size
    matching = _Matching(model, tokenizer)
    for token, row in tokenizer.get_vocab().items():
        found[row] = matching.source(token)
    return found


def counted(found: Sequence[Source]) -> dict[str, int]:
    """Return how many rows come from where."""
    counts = Counter(source.kind for source in found)
    return {kind: counts[kind] for kind in ("shared", "role", "subwords", "mean")}


class _Matching:
    """Finds what a model has for the tokens of another tokenizer."""

    def __init__(self, model: Lexicon, tokenizer: Any) -> None:
        self._ids: Mapping[str, int] = model.ids
        self._ours, self._theirs = TokenTexts(model.tokenizer), TokenTexts(tokenizer)
        self._roles = _roles(model, tokenizer)
        unknown = getattr(model.tokenizer, "unk_token", None)
        self._unknown = None if unknown is None else str(unknown)
        self._by_text: dict[bytes, str] = {}
        # of two tokens of one text the first one stays: letters ahead of their bytes
        for token in sorted(self._ids, key=lambda x: (x.startswith("<0x"), self._ids[x])):
            if token not in self._ours.special:
                self._by_text.setdefault(self._ours.of(token), token)

    def source(self, token: str) -> Source:
        if token in self._theirs.special:
            if token in self._ours.special and token in self._ids:
                return Source("shared", (self._ids[token],))
            row = self._roles.get(token)
            return Source("mean") if row is None else Source("role", (row,))
        text = self._theirs.of(token)
        if token in self._ids and token not in self._ours.special and self._ours.of(token) == text:
            return Source("shared", (self._ids[token],))
        if text in self._by_text:
            return Source("shared", (self._ids[self._by_text[text]],))
        rows = self._rows(text)
        return Source("subwords", rows) if rows else Source("mean")

    def _rows(self, text: bytes) -> tuple[int, ...]:
        """Return the rows of the tokens that a text is cut into; of its bytes where need be."""
        cut = self._ours.cut(text)
        if not cut:  # a part of a letter, in a vocabulary that has bytes for those
            cut = [self._by_text.get(bytes([byte]), "") for byte in text]
        if self._unknown in cut or any(token not in self._ids for token in cut):
            return ()
        whole = self._ours.kind == "pieces" or b"".join(map(self._ours.of, cut)) == text
        return tuple(self._ids[token] for token in cut) if whole else ()  # letters may be dropped


def _roles(model: Lexicon, tokenizer: Any) -> dict[str, int]:
    """Return special token of the new tokenizer -> row of the model's token of that role."""
    found: dict[str, int] = {}
    for role in ROLES:
        new, old = getattr(tokenizer, role, None), getattr(model.tokenizer, role, None)
        if new is not None and old is not None and str(old) in model.ids:
            found.setdefault(str(new), model.ids[str(old)])
    return found

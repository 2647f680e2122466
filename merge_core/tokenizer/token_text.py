"""What a token stands for in a text, as bytes: one form for all kinds of vocabularies.

ByteLevel    each character of an entry is a byte (GPT-2's table): ``Ġthe`` is `` the``
Metaspace    ``▁`` is a space, ``<0x0A>`` a byte: ``▁the`` is `` the``
WordPiece    ``##ing`` goes on with a word, ``the`` begins one: `` the``
other        the entry as it is
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # of SentencePiece
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenTexts:
    """The texts of one tokenizer's tokens, and how a text is written and cut in its alphabet.

    Args:
        tokenizer: Of transformers, with a form of the tokenizers library.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._document: dict[str, Any] = json.loads(self._backend.to_str())
        self.added = {str(x.content) for x in tokenizer.added_tokens_decoder.values()}
        self.special = {
            str(x.content) for x in tokenizer.added_tokens_decoder.values() if x.special
        }

    @cached_property
    def kind(self) -> str:
        """``bytes``, ``spaces``, ``pieces`` or ``plain``; see above."""
        parts = [self._document.get(part) for part in ("pre_tokenizer", "decoder", "normalizer")]
        types = {str(x.get("type")) for part in parts for x in _mappings(part)}
        if "ByteLevel" in types:
            return "bytes"
        if self._document["model"]["type"] == "WordPiece":
            return "pieces"
        marked = any(SPACE in str(x.get("content")) for part in parts for x in _mappings(part))
        return "spaces" if "Metaspace" in types or marked else "plain"

    def of(self, token: str) -> bytes:
        """Return what a token stands for; an added one stands for what it is written as."""
        if token in self.added or self.kind == "plain":
            return token.encode()
        if self.kind == "bytes":
            known = [_BYTES.get(letter) for letter in token]
            return token.encode() if None in known else bytes(x for x in known if x is not None)
        if self.kind == "pieces":
            return (
                token.removeprefix(self._mark).encode()
                if self._goes_on(token)
                else b" " + token.encode()
            )
        byte = _BYTE.fullmatch(token)
        return bytes([int(byte[1], 16)]) if byte else token.replace(SPACE, " ").encode()

    def cut(self, text: bytes) -> list[str]:
        """Return the tokens into which the tokenizer's model cuts a text, or none.

        Neither its pre-tokenizer nor its normalizer sees the text, which may be a part of a word;
        where nothing is lost but letters' case (WordPiece), the normalizer does.
        """
        written = self._written(text)
        return [x.value for x in self._backend.model.tokenize(written)] if written else []

    def _written(self, text: bytes) -> str | None:
        """Return a text in the tokenizer's alphabet, or None where it has no such bytes."""
        if self.kind == "bytes":
            return "".join(_LETTERS[byte] for byte in text)
        try:
            plain = text.decode()
        except UnicodeDecodeError:  # a part of a letter
            return None
        if self.kind == "spaces":
            return plain.replace(" ", SPACE)
        if self.kind == "pieces":
            normalizer = self._backend.normalizer
            plain = plain.removeprefix(" ")
            return normalizer.normalize_str(plain) if normalizer is not None else plain
        return plain

    @property
    def _mark(self) -> str:
        return str(self._document["model"].get("continuing_subword_prefix", "##"))

    def _goes_on(self, token: str) -> bool:
        return token.startswith(self._mark) and token != self._mark


def _letters() -> dict[int, str]:
    """Return byte -> letter of byte-level vocabularies: printable ones as they are, in Latin-1."""
    spans = (range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100))
    kept = {byte for span in spans for byte in span}
    moved = iter(range(0x100, 0x200))
    return {byte: chr(byte if byte in kept else next(moved)) for byte in range(256)}


_LETTERS = _letters()
_BYTES = {letter: byte for byte, letter in _LETTERS.items()}


def _mappings(part: Any) -> Iterator[dict[str, Any]]:
    """Yield all mappings in plain data."""
    if isinstance(part, dict):
        yield part
    if isinstance(part, dict | list):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from _mappings(inner)

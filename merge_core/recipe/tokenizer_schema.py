"""What a recipe says of tokens: whose vocabulary, where its rows come from, which chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from merge_core.errors import hint

UNION, BASE = "union", "base"
AUTO = "auto"
TEMPLATES = ("alpaca", "chatml", "exaone", "llama3", "mistral")
TEMPLATE = f"{AUTO}, {', '.join(TEMPLATES)}, or Jinja text"
Kind = Literal["model", "model_token", "zero"]


@dataclass(frozen=True)
class TokenSource:
    """Where one token's row comes from in the models that do not have the token.

    Args:
        kind: ``model``: the row of the same token in ``model``; ``model_token``: the row of
            ``token`` or ``token_id`` there; ``zero``: zeros.
        model: A model reference; None for ``zero``.
        token: Of ``model_token``, if it is named by its text.
        token_id: Of ``model_token``, if it is named by its number.
        force: The row holds for every model, also for those that have the token.
    """

    kind: Kind
    model: str | None = None
    token: str | None = None
    token_id: int | None = None
    force: bool = False

    def plain(self) -> dict[str, Any]:
        """Return the plain data of its YAML."""
        given: dict[str, Any] = {
            "kind": self.kind,
            "model": self.model,
            "token": self.token,
            "token_id": self.token_id,
        }
        named = {key: value for key, value in given.items() if value is not None}
        source = self.model if self.kind == "model" else named
        return {"source": source} | ({"force": True} if self.force else {})


@dataclass(frozen=True)
class TokenizerSetting:
    """What stands under ``tokenizer:``, or what ``tokenizer_source:`` is short for.

    Args:
        source: ``union``, ``base``, or the reference of the model whose tokenizer is taken.
        tokens: Token -> source of its row, sorted by token; tokens that are not in the vocabulary
            are added to it in this order.
        pad_to_multiple_of: The number of rows is rounded up to a multiple of it.
    """

    source: str = UNION
    tokens: tuple[tuple[str, TokenSource], ...] = ()
    pad_to_multiple_of: int | None = None

    def plain(self) -> dict[str, Any]:
        """Return the plain data of its YAML, for the key ``tokenizer``."""
        data: dict[str, Any] = {"source": self.source}
        if self.tokens:
            data["tokens"] = {token: source.plain() for token, source in self.tokens}
        if self.pad_to_multiple_of is not None:
            data["pad_to_multiple_of"] = self.pad_to_multiple_of
        return data

    def references(self) -> tuple[str, ...]:
        """Return every model reference once, in the order they stand."""
        named = [] if self.source in (UNION, BASE) else [self.source]
        named += [source.model for _, source in self.tokens if source.model is not None]
        return tuple(dict.fromkeys(named))

    def with_references(self, names: Mapping[str, str]) -> TokenizerSetting:
        """Return the same setting with its model references replaced as ``names`` says."""
        tokens = (
            (token, replace(source, model=names.get(source.model or "", source.model)))
            for token, source in self.tokens
        )
        source = self.source if self.source in (UNION, BASE) else names.get(self.source)
        return replace(self, source=source or self.source, tokens=tuple(tokens))


def template_rule(setting: str) -> str | None:
    """Return ``rule, got value`` if a text cannot stand under ``chat_template``, else None."""
    if setting == AUTO or setting in TEMPLATES or "{" in setting:
        return None
    return f"expected {TEMPLATE}, got {setting!r}{hint(setting, (AUTO, *TEMPLATES))}"

"""What a recipe says of tokens: whose vocabulary, where its rows come from, which chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Literal

from merge_core.errors import hint

UNION, BASE = "union", "base"
REFERENCES = {"model", "base_model", "source", "source_model", "gates"}  # fields that hold one
AUTO = "auto"
TEMPLATES = ("alpaca", "chatml", "exaone", "llama3", "mistral")
TEMPLATE = f"{AUTO}, {', '.join(TEMPLATES)}, or Jinja text"


@dataclass(frozen=True)
class TokenSource:
    """Where one token's row comes from in the models that do not have the token.

    ``model``: the row of the same token in a model; ``model_token``: the row of another token,
    named by text or number, there; ``zero``: zeros.
    """

    kind: Literal["model", "model_token", "zero"]
    model: str | None = None  # a model reference; None for ``zero``
    token: str | None = None
    token_id: int | None = None
    force: bool = False  # the row holds for every model, also for those that have the token

    def plain(self) -> dict[str, Any]:
        """Return the plain data of its YAML."""
        given = {key: value for key, value in vars(self).items() if value is not None}
        del given["force"]
        source = self.model if self.kind == "model" else given
        return {"source": source} | ({"force": True} if self.force else {})


@dataclass(frozen=True)
class TokenizerSetting:
    """What stands under ``tokenizer:``, or what ``tokenizer_source:`` is short for."""

    source: str = UNION  # or ``base``, or the reference of the model whose tokenizer is taken
    # Token -> source of its row, sorted by token; those that are new are added in this order.
    tokens: tuple[tuple[str, TokenSource], ...] = ()
    pad_to_multiple_of: int | None = None  # the number of rows is rounded up to one

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


def with_references(part: Any, names: Mapping[str, str]) -> Any:
    """Return the same part of a recipe with its model references replaced as ``names`` says."""
    if isinstance(part, tuple):
        return tuple(with_references(member, names) for member in part)
    if not is_dataclass(part):
        return part
    changed = {key: with_references(value, names) for key, value in vars(part).items()}
    for key in changed.keys() & REFERENCES:
        if key != "source" or changed[key] not in (UNION, BASE):
            changed[key] = names.get(changed[key], changed[key])
    return replace(part, **changed)  # type: ignore[type-var]  # is_dataclass admits classes


def template_rule(setting: str) -> str | None:
    """Return ``rule, got value`` if a text cannot stand under ``chat_template``, else None."""
    if setting == AUTO or setting in TEMPLATES or "{" in setting:
        return None
    return f"expected {TEMPLATE}, got {setting!r}{hint(setting, (AUTO, *TEMPLATES))}"

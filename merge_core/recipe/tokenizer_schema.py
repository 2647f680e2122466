"""The dialect's ``tokenizer`` block: the result's vocabulary, and where its rows come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from merge_core.errors import Problems, hint, join, shown
from merge_core.recipe.read_fields import check_keys, model_reference

UNION, BASE = "union", "base"
KINDS = ("model_token", "zero")
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
        return TokenizerSetting(
            self.source if self.source in (UNION, BASE) else names.get(self.source, self.source),
            tuple((token, _renamed(source, names)) for token, source in self.tokens),
            self.pad_to_multiple_of,
        )


def _renamed(source: TokenSource, names: Mapping[str, str]) -> TokenSource:
    model = None if source.model is None else names.get(source.model, source.model)
    return TokenSource(source.kind, model, source.token, source.token_id, source.force)


def parse(data: Any, path: str, problems: Problems) -> TokenizerSetting | None:
    """Turn what stands under ``tokenizer`` into a setting; add what is wrong to ``problems``.

    Args:
        data: As read from YAML.
        path: Key path of ``data`` in its document.
        problems: Is extended, by (key path, rule).

    Returns:
        The setting, or None if there were problems.
    """
    if not isinstance(data, dict):
        rule = "expected {source, tokens, pad_to_multiple_of}"
        problems.append((path, f"{rule}, got {shown(data)}"))
        return None
    found: Problems = []
    check_keys(data, ("source", "tokens", "pad_to_multiple_of"), path, found)
    setting = TokenizerSetting(
        model_reference(data.get("source", UNION), join(path, "source"), found) or UNION,
        _tokens(data.get("tokens"), join(path, "tokens"), found),
        _whole(data, "pad_to_multiple_of", 1, path, found),
    )
    problems.extend(found)
    return None if found else setting


def parse_source(data: Any, path: str, problems: Problems) -> TokenizerSetting | None:
    """Turn what stands under ``tokenizer_source`` into a setting, as :func:`parse` does."""
    source = model_reference(data, path, problems)
    return None if source is None else TokenizerSetting(source)


def _whole(data: dict[Any, Any], key: str, least: int, path: str, problems: Problems) -> int | None:
    if key not in data:
        return None
    value = data[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        rule = f"expected a whole number from {least} on, got {shown(value)}"
        problems.append((join(path, key), rule))
        return None
    return value


def _tokens(data: Any, path: str, problems: Problems) -> tuple[tuple[str, TokenSource], ...]:
    if data is None:
        return ()
    if not isinstance(data, dict):
        problems.append((path, f"expected tokens (a mapping), got {shown(data)}"))
        return ()
    tokens = []
    for token, entry in data.items():
        where = join(path, str(token))
        if not isinstance(token, str) or not token:
            problems.append((where, f"expected the text of a token, got {shown(token)}"))
            continue
        tokens.append((token, _token(entry, where, problems)))
    return tuple((token, source) for token, source in sorted(tokens, key=_first) if source)


def _first(pair: tuple[str, Any]) -> str:
    return pair[0]


def _token(data: Any, path: str, problems: Problems) -> TokenSource | None:
    if not isinstance(data, dict):
        problems.append((path, f"expected {{source, force}}, got {shown(data)}"))
        return None
    check_keys(data, ("source", "force"), path, problems)
    force = data.get("force", False)
    if not isinstance(force, bool):
        problems.append((join(path, "force"), f"expected true or false, got {shown(force)}"))
        return None
    where = join(path, "source")
    if "source" not in data:
        problems.append((where, "required"))
        return None
    source = data["source"]
    if isinstance(source, dict) and ("kind" in source or "model" not in source):
        return _kind(source, force, where, problems)
    model = model_reference(source, where, problems)
    return None if model is None else TokenSource("model", model, force=force)


def _kind(data: dict[Any, Any], force: bool, path: str, problems: Problems) -> TokenSource | None:
    kind = data.get("kind")
    if kind == "zero":
        check_keys(data, ("kind",), path, problems)
        return TokenSource("zero", force=force)
    if kind == "model_token":
        return _model_token(data, force, path, problems)
    near = hint(kind, KINDS) if isinstance(kind, str) else ""
    rule = f"expected {' or '.join(KINDS)}, got {shown(kind)}{near}"
    problems.append((join(path, "kind"), rule))
    return None


def _model_token(
    data: dict[Any, Any], force: bool, path: str, problems: Problems
) -> TokenSource | None:
    check_keys(data, ("kind", "model", "token", "token_id"), path, problems)
    model = model_reference(data.get("model"), join(path, "model"), problems)
    if ("token" in data) == ("token_id" in data):
        problems.append((path, "expected one of token and token_id"))
        return None
    token = data.get("token")
    if "token" in data and (not isinstance(token, str) or not token):
        rule = f"expected the text of a token, got {shown(token)}"
        problems.append((join(path, "token"), rule))
        return None
    number = _whole(data, "token_id", 0, path, problems)
    return TokenSource("model_token", model, token, number, force)

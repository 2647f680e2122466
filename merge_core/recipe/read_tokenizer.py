"""The keys of a recipe about tokens -> the tokenizer's setting and that of the chat template."""

from __future__ import annotations

from merge_core.contract import flag_of
from merge_core.errors import hint, shown
from merge_core.recipe.read_fields import Node
from merge_core.recipe.tokenizer_schema import (
    TEMPLATE,
    UNION,
    TokenizerSetting,
    TokenSource,
    template_rule,
)

KEYS = ("tokenizer_source", "tokenizer", "chat_template")
BLOCK = ("source", "tokens", "pad_to_multiple_of")
WIDEST = 2**16  # rows that may be added for a multiple
KINDS = ("model_token", "zero")


def tokenizer(recipe: Node) -> TokenizerSetting | None:
    """Read ``tokenizer``, or ``tokenizer_source``, which is short for it with a source alone.

    None if there is none, or with problems.
    """
    if "tokenizer" in recipe.data and "tokenizer_source" in recipe.data:
        rule = "expected one of tokenizer and tokenizer_source, got both"
        recipe.at("tokenizer_source").refuse(rule)
    if "tokenizer" in recipe.data:
        return _block(recipe.at("tokenizer"))
    source = recipe.at("tokenizer_source").model() if "tokenizer_source" in recipe.data else None
    return None if source is None else TokenizerSetting(source)


def chat_template(recipe: Node) -> str | None:
    """Read ``chat_template`` if it is ``auto``, a known name or has a ``{``; else it is a problem.

    Whether Jinja text compiles is seen when it is used: reading a recipe stays light.
    """
    node = recipe.at("chat_template")
    if "chat_template" not in recipe.data:
        return None
    if not isinstance(node.data, str) or not node.data:
        node.expected(TEMPLATE)
        return None
    rule = template_rule(node.data)
    if rule is not None:
        node.refuse(rule)
    return node.data if rule is None else None


def _block(place: Node) -> TokenizerSetting | None:
    before = len(place.problems)
    node = place.mapping("{source, tokens, pad_to_multiple_of}", BLOCK)
    if node is None:
        return None
    source = node.at("source").model() if "source" in node.data else UNION
    tokens = _tokens(node.at("tokens"))
    multiple = node.whole("pad_to_multiple_of", 1, WIDEST, f"1 to {WIDEST}")
    if len(node.problems) > before or source is None:
        return None
    return TokenizerSetting(source, tokens, multiple)


def _tokens(node: Node) -> tuple[tuple[str, TokenSource], ...]:
    if node.data is None:
        return ()
    if not isinstance(node.data, dict):
        node.expected("tokens (a mapping)")
        return ()
    tokens = []
    for token in node.data:
        if isinstance(token, str) and token:
            tokens.append((token, _token(node.at(token))))
        else:
            node.at(token).refuse(f"expected the text of a token, got {shown(token)}")
    tokens.sort(key=lambda pair: pair[0])
    return tuple((token, source) for token, source in tokens if source)


def _token(place: Node) -> TokenSource | None:
    node = place.mapping("{source, force}", ("source", "force"))
    if node is None:
        return None
    force = flag_of(node.data.get("force", False))
    if force is None:
        node.at("force").expected("true or false")
        return None
    source = node.at("source")
    if "source" not in node.data:
        source.refuse("required")
        return None
    if isinstance(source.data, dict) and ("kind" in source.data or "model" not in source.data):
        return _kind(source, force)
    model = source.model()
    return None if model is None else TokenSource("model", model, force=force)


def _kind(node: Node, force: bool) -> TokenSource | None:
    kind = node.at("kind")
    if kind.data == "zero":
        node.mapping("{kind}", ("kind",))
        return TokenSource("zero", force=force)
    if kind.data == "model_token":
        return _model_token(node, force)
    near = hint(kind.data, KINDS) if isinstance(kind.data, str) else ""
    kind.refuse(f"expected {' or '.join(KINDS)}, got {shown(kind.data)}{near}")
    return None


def _model_token(place: Node, force: bool) -> TokenSource | None:
    node = place.mapping("{kind, model, token or token_id}", ("kind", "model", "token", "token_id"))
    if node is None:
        return None
    model, token = node.at("model").model(), node.at("token")
    if ("token" in node.data) == ("token_id" in node.data):
        node.refuse("expected one of token and token_id")
        return None
    if "token" in node.data and (not isinstance(token.data, str) or not token.data):
        token.expected("the text of a token")
        return None
    number = node.whole("token_id", 0, float("inf"), "0 on")
    return TokenSource("model_token", model, token.data, number, force)

"""Attributes whose JSON is too long for a database's column, cut into several.

MySQL's TEXT takes 65,535 bytes. A longer JSON text is compressed and cut; its pieces stand under
``KEY/DIGEST/0``, ``KEY/DIGEST/1``, ..., and under the key itself how many there are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from search.storage.packed import deflated, inflated

MOST = 60_000  # characters of an attribute's JSON, which is ASCII
LONGEST = 2**28  # bytes of a text that was cut
_PIECE = re.compile(r"(.+)/[0-9a-f]{16}/\d+", re.DOTALL)


def cut(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as they are stored; what is too long is cut, with its pieces ahead of it.

    Args:
        attributes: Name -> a value that JSON knows.
    """
    stored: dict[str, Any] = {}
    for key, value in attributes.items():
        text = json.dumps(value)
        stored |= {key: value} if len(text) <= MOST else _pieces(key, text)
    return stored


def _pieces(key: str, text: str) -> dict[str, Any]:
    digest = sha256(text.encode()).hexdigest()[:16]
    packed, size = deflated(text.encode()), MOST - len('""')
    pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
    head = {"chunks": len(pieces), "digest": digest}
    return {**{_name(key, digest, i): piece for i, piece in enumerate(pieces)}, key: head}


def joined(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as they were before they were cut.

    Raises:
        ValueError: A piece is missing or damaged; the attribute is named.
    """
    whole = {key: value for key, value in attributes.items() if not _PIECE.fullmatch(key)}
    return {
        key: _put_together(key, value, attributes) if _is_head(value) else value
        for key, value in whole.items()
    }


def pieces_of(key: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pieces of one attribute, those of values that it had earlier among them."""
    return {
        name: value
        for name, value in attributes.items()
        if (match := _PIECE.fullmatch(name)) and match[1] == key
    }


def _put_together(key: str, head: Mapping[str, Any], attributes: Mapping[str, Any]) -> Any:
    names = [_name(key, head["digest"], i) for i in range(head["chunks"])]
    missing = [name for name in names if not isinstance(attributes.get(name), str)]
    if missing:
        raise ValueError(f"{key}: its piece {missing[0]} is missing")
    try:
        data = inflated("".join(attributes[name] for name in names), LONGEST)
        if sha256(data).hexdigest()[:16] != head["digest"]:
            raise ValueError("its digest is another one")
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{key}: its pieces do not fit: {error}") from error


def _is_head(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"chunks", "digest"}
        and type(value["chunks"]) is int
        and isinstance(value["digest"], str)
        and 0 < value["chunks"] <= LONGEST // MOST
    )


def _name(key: str, digest: str, number: int) -> str:
    return f"{key}/{digest}/{number}"

"""What every evaluator of a user's own files does alike: refuse positions, name what it does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evaluators.protocol import Item, canonical


def check_positions(task: str, items: Sequence[Item], which: Sequence[int]) -> None:
    """Refuse positions that are no item's.

    Raises:
        IndexError: A position is outside ``items``; -1 is, too.
    """
    outside = [i for i in which if not 0 <= i < len(items)]
    if outside:
        raise IndexError(f"{task} has {len(items)} items, got positions {outside}")


def fingerprint(evaluator: str, facts: Mapping[str, Any], requests: Iterable[object]) -> str:
    """Return a JSON object that names an evaluator's settings and all that it asks.

    Args:
        evaluator: Its name.
        facts: Settings, as JSON values.
        requests: One entry per item, whatever JSON can write; only their hash is kept.
    """
    asked = hashlib.sha256()
    for request in requests:
        asked.update(canonical(request) + b"\n")
    told = {"evaluator": evaluator, **facts, "requests": asked.hexdigest()}
    return json.dumps(told, sort_keys=True)

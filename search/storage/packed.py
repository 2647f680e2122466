"""Item scores and item ids as text: exact, compressed, and read without trusting who wrote them."""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from merge_core.errors import Problems, join
from merge_core.validation import Number, StrictModel, read

MOST = 2**24  # scores of one measurement, ids of one study; some 10**5 are in use
FLOATS = "float64"  # the key of packed scores; earlier formats have tasks there
Ids = Mapping[str, Mapping[str, Sequence[str]]]  # pool -> task -> ids of its items


class _Plain(StrictModel):
    scores: dict[str, list[Number]]


def deflated(data: bytes) -> str:
    """Return bytes compressed (zlib), as ASCII text (base64)."""
    return base64.b64encode(zlib.compress(data)).decode()


def inflated(text: object, most: int) -> bytes:
    """Return the bytes of such a text.

    Args:
        text: Of somebody else.
        most: How many bytes it may hold.

    Raises:
        ValueError: It is none, or holds more.
    """
    if not isinstance(text, str):
        raise ValueError("expected a text")
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(base64.b64decode(text, validate=True), most + 1)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"expected zlib data in base64: {error}") from error
    if len(data) > most:
        raise ValueError(f"expected at most {most} bytes, got more")
    if not stream.eof or stream.unused_data:
        raise ValueError("expected zlib data in base64, got a part of some, or more")
    return data


def inflated_json(text: object, most: int) -> Any:
    """Return what such a text holds as JSON.

    Raises:
        ValueError: It holds none, or more than ``most`` bytes.
    """
    try:
        return json.loads(inflated(text, most))
    except RecursionError as error:
        raise ValueError(str(error)) from error


def packed_scores(scores: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return task -> scores as an attribute holds them: every float64 bit for bit."""
    numbers = [x for found in scores.values() for x in found]
    data = struct.pack(f"<{len(numbers)}d", *numbers)
    return {"items": {task: len(x) for task, x in scores.items()}, FLOATS: deflated(data)}


def read_scores(value: Any, path: str, problems: Problems) -> dict[str, list[float]] | None:
    """Return task -> scores, of an attribute of any format.

    Args:
        value: What it holds: packed scores, or, in format 1, a list of numbers for each task.
        path: Its name, for the problems.
        problems: To add to.

    Returns:
        Finite numbers, or None where there is a problem.
    """
    if isinstance(value, dict) and isinstance(value.get(FLOATS), str):
        return _unpacked(value, path, problems)
    inner: Problems = []
    found = read(_Plain, {"scores": value}, "", inner)
    problems += [(path + place.removeprefix("scores"), rule) for place, rule in inner]
    return None if found is None else {task: [*map(float, x)] for task, x in found.scores.items()}


def _unpacked(value: Mapping[str, Any], path: str, problems: Problems) -> dict[str, list[float]]:
    counts = _counts(value.get("items"))
    if counts is None:
        problems.append((join(path, "items"), "expected how many scores each task has"))
        return {}
    count = sum(counts.values())
    try:
        data = inflated(value[FLOATS], 8 * count)
        if len(data) != 8 * count:
            raise ValueError(f"expected {count} scores, got {len(data)} bytes")
    except ValueError as error:
        problems.append((join(path, FLOATS), str(error)))
        return {}
    numbers = struct.unpack(f"<{count}d", data)
    if not all(map(math.isfinite, numbers)):
        problems.append((join(path, FLOATS), "expected finite numbers"))
    each = iter(numbers)
    return {task: [*islice(each, n)] for task, n in counts.items()}


def _counts(found: Any) -> dict[str, int] | None:
    """Return task -> how many, where this is it, and of a size that can be."""
    whole = isinstance(found, dict) and all(type(n) is int and n >= 0 for n in found.values())
    return found if whole and sum(found.values()) <= MOST else None


def packed_ids(ids: Ids) -> dict[str, Any]:
    """Return the ids of all pools as an attribute holds them."""
    plain = {pool: {task: [*x] for task, x in tasks.items()} for pool, tasks in ids.items()}
    return {"json": deflated(json.dumps(plain).encode())}


def unpacked_ids(value: Any) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the ids of all pools.

    Raises:
        ValueError: The attribute holds none.
    """
    text = value.get("json") if isinstance(value, dict) else None
    try:
        found = inflated_json(text, 2**28)
    except ValueError as error:
        raise ValueError(f"expected packed ids: {error}") from error
    problems: Problems = []
    ids = read(_Ids, {"ids": found}, "", problems)
    if ids is None:
        raise ValueError("; ".join(f"{path}: {rule}" for path, rule in problems))
    return {pool: {task: tuple(x) for task, x in tasks.items()} for pool, tasks in ids.ids.items()}


class _Ids(StrictModel):
    ids: dict[str, dict[str, list[str]]]

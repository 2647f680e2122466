"""JSON of others that is read within bounds, and JSON that every reader takes.

Python also reads and writes Infinity and NaN, which no standard knows; it reads a key twice, and
nests until its stack ends.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from merge_core.errors import CheckpointError, MergeError, shown

BYTES = 2**28  # of a file; the largest tokenizer.json today has 2**25
PIECE = 2**20  # bytes asked for at a time: Python takes memory for as many as are asked for
VALUES = 5 * 10**6  # of a document; they take up to 100 bytes each, some 10**6 are in use
DEPTH = 64  # of nesting; 10 are in use
DIGITS = 40  # of a whole number in a model's files; 31 are in use (no greatest length: 1e30)
POINTER = b"version https://git-lfs"  # what git has in place of a large file
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def json_text(data: Any) -> str:
    """Return data as indented JSON; a number that is infinite or NaN becomes null."""
    return json.dumps(finite(data), indent=1, allow_nan=False)


def finite(data: Any) -> Any:
    """Return plain data with None for every number that is infinite or NaN."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def read_json(path: Path, raises: type[MergeError] = CheckpointError) -> dict[str, Any]:
    """Read the JSON object of a file that somebody else wrote; see ``parse_json``.

    Raises:
        CheckpointError: Or ``raises``: The file cannot be read, or holds something else.
    """
    data = parse_json(read_text(path, raises), str(path), raises, digits=DIGITS)
    if not isinstance(data, dict):
        raise raises(f"{path}: expected a JSON object, got {shown(data)[:80]}")
    return data


def hint_of(file: Path) -> dict[str, Any]:
    """Return what a JSON file holds, where that is a hint only: nothing, if it cannot be read."""
    try:
        return read_json(file)
    except CheckpointError:
        return {}


def read_text(path: Path, raises: type[MergeError] = CheckpointError, most: int = BYTES) -> str:
    """Read a text file that somebody else wrote; devices and pipes, which may never end, are none.

    Raises:
        CheckpointError: Or ``raises``: It is missing, no regular file, has more than ``most``
            bytes, or is not UTF-8.
    """
    data = read_bytes(path, raises, most)
    refuse_pointer(data, path, raises)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte {error.start} is 0x{error.object[error.start]:02x}"
        raise raises(f"{path}: cannot be read: not UTF-8, {byte}; fetch it again") from error


def read_bytes(path: Path, raises: type[MergeError] = CheckpointError, most: int = BYTES) -> bytes:
    """Read a file that somebody else wrote; see ``read_text``."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise raises(f"{path}: cannot be read: not a regular file; put a file there")
            data = bytearray()
            while len(data) <= most and (piece := stream.read(PIECE)):
                data += piece
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or str(error)
        raise raises(f"{path}: cannot be read: {why}") from error
    if len(data) > most:
        raise raises(f"{path}: cannot be read: expected at most {most} bytes, got more")
    return bytes(data)


def refuse_pointer(start: bytes, path: Path, raises: type[MergeError] = CheckpointError) -> None:
    """Refuse what git-lfs leaves in place of a file, by the file's first bytes.

    Raises:
        CheckpointError: Or ``raises``: It is such a pointer.
    """
    if start.startswith(POINTER):
        raise raises(
            f"{path}: is a pointer of git-lfs, the file itself was not fetched; run git lfs pull "
            f"in its folder, or download it again from the hub"
        )


def parse_json(
    text: str, where: str, raises: type[MergeError] = CheckpointError, *, digits: int = 4000
) -> Any:
    """Return what a JSON text of somebody else says.

    Infinity is let through: transformers before 5 wrote it into configs.

    Args:
        text: At most 5 * 10**6 values, nested at most 64 deep.
        where: Where it stands, for messages.
        raises: The error's class.
        digits: The most that a whole number may have.

    Raises:
        CheckpointError: Or ``raises``: It is no JSON or beyond these bounds; a key stands twice in
            one object; a number is NaN or beyond float64; a text is not Unicode.
    """
    values = text.count(",") + text.count("[") + text.count("{")
    if values > VALUES:
        raise raises(f"{where}: cannot be read: expected at most {VALUES} values")
    try:
        data = _Decoder(digits).decode(text)
        if _SURROGATE.search(text):
            json.dumps(data, ensure_ascii=False).encode()
    except RecursionError as error:
        raise raises(f"{where}: cannot be read: nested too deep ({DEPTH} at most)") from error
    except UnicodeEncodeError as error:
        raise raises(f"{where}: cannot be read: half a surrogate pair in a text") from error
    except ValueError as error:
        raise raises(f"{where}: cannot be read: {error}") from error
    if any(depth > DEPTH for depth, _ in enumerate(_levels(data), start=1)):
        raise raises(f"{where}: cannot be read: nested too deep ({DEPTH} at most)")
    return data


class _Decoder(json.JSONDecoder):
    def __init__(self, digits: int) -> None:
        def whole(text: str) -> int:
            if len(text) > digits:
                raise ValueError(
                    f"expected whole numbers of at most {digits} digits, got {len(text)}"
                )
            return int(text)

        super().__init__(
            object_pairs_hook=_once, parse_int=whole, parse_float=_float, parse_constant=_constant
        )


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        raise ValueError(f"the key {twice[:80]!r} stands there twice")
    return found


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"a number beyond float64: {text[:80]}")
    return number


def _constant(text: str) -> float:
    if text == "NaN":
        raise ValueError("NaN is no number of JSON")
    return float(text)


def _levels(data: Any) -> Iterator[list[Any]]:
    """Yield the lists and mappings of every depth; without recursion."""
    level = [data]
    while level := [part for part in level if isinstance(part, (dict, list))]:
        yield level
        level = [x for part in level for x in (part.values() if isinstance(part, dict) else part)]


def tagged(data: Any) -> Any:
    """Return plain data with numbers that are infinite or NaN as transformers writes them.

    That is ``{"__float__": "Infinity"}``, which it also reads.
    """
    if isinstance(data, dict):
        return {key: tagged(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [tagged(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return {"__float__": json.dumps(data)}
    return data

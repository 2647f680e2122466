"""What the header of a safetensors file says, checked against the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merge_core.errors import CheckpointError, shown
from merge_core.json_text import POINTER, parse_json, refuse_pointer

HEADER_BYTES = 2**25  # 300,000 tensors; the format's own limit, 10**8, is a minute of parsing
AXES = 64  # as in torch


def read_header(path: Path, widths: Mapping[str, int]) -> tuple[int, dict[str, Any]]:
    """Return where a file's tensors begin, and what its header says of each, if it holds them.

    Args:
        path: The file.
        widths: Type -> bytes of an entry; the sizes of tensors of other types are not checked.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        with path.open("rb") as stream:
            refuse_pointer(stream.read(len(POINTER)), path)
            stream.seek(0)
            size, there = int.from_bytes(stream.read(8), "little"), path.stat().st_size
            if size > min(HEADER_BYTES, there - 8):
                raise ValueError(f"its header has {size} bytes, the file {there}")
            text = stream.read(size).decode("utf-8")
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
    header = parse_json(text, f"{path}: damaged or no safetensors file: its header")
    if not isinstance(header, dict):
        raise damaged(path, f"its header is {shown(header)[:80]}")
    entries = {name: said for name, said in header.items() if name != "__metadata__"}
    end = 0
    for name, said in sorted(entries.items(), key=lambda entry: place(entry[1])):
        if not _is_entry(said, widths) or place(said)[0] != end:
            raise damaged(path, f"its header says of {name[:80]} {shown(said)[:160]}")
        end = place(said)[1]
    if end != there - 8 - size:
        raise damaged(path, f"its tensors have {end} bytes, the file has {there - 8 - size}")
    return 8 + size, entries


def place(said: Any) -> tuple[int, int]:
    """Return where an entry of a header says that its tensor begins and ends; else -1, -1."""
    offsets = said.get("data_offsets") if isinstance(said, dict) else None
    whole = isinstance(offsets, list) and len(offsets) == 2 and all(map(_is_size, offsets))
    return (offsets[0], offsets[1]) if offsets and whole else (-1, -1)


def _is_entry(said: Any, widths: Mapping[str, int]) -> bool:
    """Return whether an entry of a header gives a type, and a shape of as many bytes."""
    begin, end = place(said)
    if not 0 <= begin <= end:
        return False
    dtype, shape = said.get("dtype"), said.get("shape")
    if not (isinstance(dtype, str) and isinstance(shape, list) and len(shape) <= AXES):
        return False
    if not all(map(_is_size, shape)):
        return False
    return dtype not in widths or math.prod(shape) * widths[dtype] == end - begin


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def damaged(path: Path, why: str) -> CheckpointError:
    """Return the error of a file that cannot be read."""
    return CheckpointError(f"{path}: damaged or no safetensors file: {why}; fetch it again")

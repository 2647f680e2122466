"""What a GGUF file says of itself, read within the file's bounds.

Source: the format's own description, github.com/ggml-org/ggml/blob/master/docs/gguf.md. The readers
of libraries believe a stranger's counts; after this one they may.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_core.errors import CheckpointError

MAGIC, VERSIONS = b"GGUF", (2, 3)
TEXT, LIST = 8, 9  # types of values
WIDTHS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
AXES = 4
LEAST = 50, 256  # bytes that so many numbers take where they are packed most (IQ1_S)
NAME_BYTES = 2**16 - 1  # of a key


@dataclass(frozen=True)
class Header:
    """Metadata by key (a list is its length only), and the numbers of each tensor by name."""

    metadata: dict[str, Any]
    tensors: dict[str, int]


def read(file: Path) -> Header:
    """Read the header of a file.

    Raises:
        CheckpointError: It is missing, no GGUF file, damaged, cut short, or one part of several.
    """
    try:
        with (
            file.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            found = _Walk(data).header()
    except (OSError, ValueError, struct.error) as error:
        raise CheckpointError(
            f"{file}: damaged or no GGUF file: {error}; fetch it again"
        ) from error
    parts = found.metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise CheckpointError(
            f"{file}: is one of {parts} parts of a model; join them with llama-gguf-split --merge"
        )
    return found


class _Walk:
    """Goes over a file once; it never asks for more than is left."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def header(self) -> Header:
        """Return the header.

        Raises:
            ValueError: It is none.
        """
        if self._bytes(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        version = self._number("I")
        if version not in VERSIONS:
            raise ValueError(f"it is of version {version}, expected 2 or 3")
        tensors, keys = self._count(24), self._count(12)
        metadata = {self._text(NAME_BYTES): self._value() for _ in range(keys)}
        if len(metadata) != keys:
            raise ValueError("a key stands there twice")
        return Header(metadata, self._tensors(tensors, metadata.get("general.alignment", 32)))

    def _tensors(self, count: int, alignment: Any) -> dict[str, int]:
        """Return name -> numbers; where the last one's bytes begin must be inside the file."""
        if not isinstance(alignment, int) or not 0 < alignment <= 2**20:
            raise ValueError(f"its alignment is {alignment}")
        found, last = {}, 0
        for _ in range(count):
            name = self._text(NAME_BYTES)
            axes = self._number("I")
            if axes > AXES or name in found:
                raise ValueError(f"{name[:80]!r} has {axes} axes or stands there twice")
            entries = 1
            for _ in range(axes):
                entries *= self._number("Q")
            self._number("I")  # how its numbers are packed
            last = max(last, self._number("Q"))
            found[name] = entries
        start = -(-self._at // alignment) * alignment
        least = sum(found.values()) * LEAST[0] // LEAST[1]
        if max(least, last) > max(len(self._data) - start, 0):
            raise ValueError(f"its tensors need more than the {len(self._data)} bytes that it has")
        return found

    def _value(self) -> Any:
        kind = self._number("I")
        if kind != LIST:
            return self._text() if kind == TEXT else self._number(self._width(kind))
        kind = self._number("I")
        if kind != TEXT:
            width = struct.calcsize(self._width(kind))
            count = self._count(width)
            self._bytes(count * width)
            return count
        count = self._count(8)
        for _ in range(count):
            self._bytes(self._number("Q"))
        return count

    def _width(self, kind: int) -> str:
        if kind not in WIDTHS:
            raise ValueError(f"a value has the type {kind}")
        return WIDTHS[kind]

    def _count(self, least: int) -> int:
        """Return how many follow, of which each takes at least so many bytes."""
        count: int = self._number("Q")
        if count * least > len(self._data) - self._at:
            raise ValueError(f"it counts {count} of what it has no room for")
        return count

    def _text(self, most: int | None = None) -> str:
        length = self._number("Q")
        if most is not None and length > most:
            raise ValueError(f"a name has {length} bytes")
        return self._bytes(length).decode("utf-8")

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack(f"<{form}", self._bytes(struct.calcsize(form)))
        return value

    def _bytes(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise ValueError("it ends before its header does")
        self._at += count
        return self._data[self._at - count : self._at]

"""A file of JSON lines -> rows that know where they stand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_core.errors import EvaluationError, hint
from merge_core.json_text import VALUES, parse_json, read_bytes


@dataclass(frozen=True)
class Row:
    """One line of the file."""

    values: dict[str, Any]  # treat as read-only
    place: str  # "file.jsonl:3", for messages

    def value(self, key: str) -> Any:
        """Return what stands under a key.

        Raises:
            EvaluationError: The row does not have it.
        """
        if key not in self.values:
            raise EvaluationError(
                f"{self.place}: no key {key!r}{hint(key, self.values)}; "
                f"the row has {', '.join(self.values) or 'no keys'}"
            )
        return self.values[key]

    def text(self, key: str) -> str:
        """Return what stands under a key as text: texts as they are, numbers as JSON has them.

        Raises:
            EvaluationError: The row does not have it, or it is neither a text nor a number.
        """
        return written(self.value(key), f"{self.place}: {key}")


def written(value: object, place: str) -> str:
    """Return a text as it is and a number as JSON has it.

    Raises:
        EvaluationError: It is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    raise EvaluationError(f"{place}: expected a text or a number, got {json.dumps(value)}")


def read_rows(path: Path) -> tuple[Row, ...]:
    """Read a file with one JSON object per line; empty lines are passed over.

    Raises:
        EvaluationError: There is no such file, it is not UTF-8, a line is no JSON object or has
            a key twice, there is no line at all, or the file is beyond the bounds of
            ``merge_core.json_text``.
    """
    text = read_text(path)
    if sum(map(text.count, ",[{")) > VALUES:
        raise EvaluationError(f"{path} cannot be read: expected at most {VALUES} values")
    lines = enumerate(text.split("\n"), start=1)
    rows = tuple(_row(line, f"{path.name}:{number}") for number, line in lines if line.strip())
    if not rows:
        raise EvaluationError(f"{path} has no rows; expected one JSON object per line")
    return rows


def read_text(path: Path) -> str:
    r"""Return a file's text; a byte-order mark is dropped and every line end is ``\n``.

    Raises:
        EvaluationError: There is no such file, it is no regular one or a very large one, or it is
            not UTF-8.
    """
    data = read_bytes(path, EvaluationError)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = error.object[error.start]
        line = error.object.count(b"\n", 0, error.start) + 1
        raise EvaluationError(
            f"{path}:{line}: is not UTF-8: byte {error.start} of the file is 0x{wrong:02x}"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _row(line: str, place: str) -> Row:
    value = parse_json(line, place, EvaluationError)
    if not isinstance(value, dict):
        raise EvaluationError(f"{place}: expected a JSON object, got {line[:80].strip()[:40]}")
    return Row(value, place)

"""Held-out text -> documents: from plain text, JSON lines or parquet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from evaluators.cluster_keys import NONE, Clusters, clusters_of
from evaluators.json_rows import read_rows, read_text
from merge_core.errors import EvaluationError, hint
from merge_core.json_text import BYTES

_EMPTY_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")


def read_documents(path: Path, key: str) -> tuple[str, ...]:
    """Read documents.

    Args:
        path: A folder: each ``.txt`` in it, by name, is one document, whole. A ``.txt`` file:
            documents are what stands between empty lines, without the line ends around. A
            ``.jsonl`` or ``.parquet`` file: one document a row.
        key: Of the text in a row.

    Raises:
        EvaluationError: It cannot be read, has no such key, or a document is empty, blank or
            no text.
    """
    if path.is_dir():
        files = sorted(path.glob("*.txt"))
        found: list[tuple[str, Any]] = [(file.name, read_text(file)) for file in files]
    elif path.suffix == ".txt":
        parts = _EMPTY_LINES.split(read_text(path).strip("\n"))
        found = [(f"{path.name}, document {i}", part) for i, part in enumerate(parts, start=1)]
    elif path.suffix == ".jsonl":
        found = [(row.place, row.value(key)) for row in read_rows(path)]
    elif path.suffix == ".parquet":
        found = [(f"{path.name}, row {i}", x) for i, x in enumerate(_column(path, key))]
    else:
        raise EvaluationError(
            f"{path}: expected a folder of .txt files or a .txt, .jsonl or .parquet file"
        )
    if not found:
        raise EvaluationError(f"{path} has no documents")
    return tuple(_checked(text, place) for place, text in found)


def clusters_in(path: Path, key: str | None) -> Clusters | None:
    """Return which documents of ``read_documents`` belong together, by a key of their rows.

    Without one, or with ``none``, they are those of equal texts: None.

    Raises:
        EvaluationError: They are no rows, or one lacks the key.
    """
    if key is None or key == NONE:
        return None
    if path.suffix == ".jsonl" and not path.is_dir():
        rows = read_rows(path)
        return clusters_of([row.values for row in rows], key, place=lambda i: rows[i].place)
    if path.suffix == ".parquet" and not path.is_dir():
        values = [{key: value} for value in _column(path, key)]
        return clusters_of(values, key, place=lambda i: f"{path.name}, row {i}")
    raise EvaluationError(
        f"{path}: cluster: {key!r} is to be a key of its rows, but only .jsonl and .parquet files "
        "have such; omit it"
    )


def _checked(text: object, place: str) -> str:
    if not isinstance(text, str):
        raise EvaluationError(f"{place}: expected a text, got {text!r}")
    if not text.strip():
        raise EvaluationError(f"{place}: the document is empty; leave it out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EvaluationError(f"{place}: no UTF-8 text: {error.reason}") from error
    return text


def _column(path: Path, key: str) -> list[Any]:
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]

    if path.exists() and not path.is_file():
        raise EvaluationError(f"{path} cannot be read: not a regular file; put a file there")
    try:
        names = parquet.read_schema(path).names
        if key in names:
            found, size = [], 0
            for batch in parquet.ParquetFile(path).iter_batches(256, columns=[key]):
                found += batch.column(0).to_pylist()
                size += sum(len(x) for x in found[-batch.num_rows :] if isinstance(x, str))
                if size > BYTES:  # which a small file may hold, packed
                    raise EvaluationError(f"{path} cannot be read: more than {BYTES} characters")
            return found
    except (OSError, ValueError, NotImplementedError, MemoryError) as error:  # as pyarrow's are
        raise EvaluationError(f"{path} cannot be read: {error}") from error
    raise EvaluationError(
        f"{path}: no column {key!r}{hint(key, names)}; there are {', '.join(names)}"
    )

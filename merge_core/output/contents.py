"""Whether a model folder still has what was written into it, by the list in its record."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from merge_core.errors import MergeError, OutputExistsError
from merge_core.json_text import read_json

RECORD = "mergetune.json"  # the last file of a folder: its presence says that it is complete
CARD = "README.md"  # its owner may write on
HASHED = 64 * 2**20  # bytes; of larger files only the size is looked at


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    """Return path in the folder -> ``bytes``, and ``sha256`` of a file of at most 64 MiB."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = {file.relative_to(folder).as_posix(): file for file in files}
    return {name: _facts(file) for name, file in names.items() if name not in (CARD, RECORD)}


def is_whole(folder: Path, weights_digest: str) -> bool:
    """Return whether a folder has the files of the model that it was written for, unchanged."""
    try:
        record = read_json(folder / RECORD)
        files = record["files"]
        same = all(_facts(folder / name) == facts for name, facts in files.items())
    except (MergeError, OSError, LookupError, AttributeError, TypeError):  # gone, cut, unreadable
        return False
    return same and bool(files) and record.get("weights_digest") == weights_digest


def check_ours(out: Path, record: str, command: str) -> None:
    """Refuse to replace a folder that a command did not write: it has not its ``record``.

    Raises:
        OutputExistsError: There is another one.
    """
    if out.exists() and any(out.iterdir()) and not (out / record).is_file():
        raise OutputExistsError(
            f"{out}: is not replaced, since {command} did not write it (it has no {record}); "
            f"choose another place or remove it yourself"
        )


def _facts(file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    if size > HASHED:
        return {"bytes": size}
    return {"bytes": size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}

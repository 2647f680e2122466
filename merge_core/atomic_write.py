"""Files and folders that are whole or absent: filled under a hidden name, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from merge_core.errors import OutputExistsError


def write_whole(target: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    make_whole(target, lambda part: part.write_text(text, encoding="utf-8"))


def make_whole(target: Path, make: Callable[[Path], object]) -> None:
    """Let ``make`` write a hidden neighbour, then rename it onto ``target``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _part(target)
    try:
        make(part)
        part.replace(target)  # rename is atomic on one disk
    finally:
        part.unlink(missing_ok=True)


def fill_whole(target: Path, fill: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Let ``fill`` write into a hidden folder, then rename it to ``target``.

    Args:
        target: Must not exist, unless it is an empty folder or ``overwrite`` is true.
        fill: Gets the hidden folder. If it raises, the folder goes and ``target`` stays as it was.
        overwrite: Replace what is there; it goes only when the new folder is complete.

    Raises:
        OutputExistsError: ``target`` is taken.
    """
    target = Path(os.path.abspath(target))  # "." has no name to make a neighbour of
    taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if taken and not overwrite:
        raise OutputExistsError(f"{target}: exists; choose another place or pass --overwrite")
    target.parent.mkdir(parents=True, exist_ok=True)
    part, old = _part(target), _part(target, "old")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        fill(part)
        if target.exists():
            target.replace(old)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not target.exists():  # the second rename failed
            old.replace(target)
        if old.is_dir():
            shutil.rmtree(old)
        old.unlink(missing_ok=True)


def _part(target: Path, kind: str = "part") -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.{kind}")

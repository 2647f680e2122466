"""What a command answers: a table or one JSON document; warnings on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from merge_core.json_text import json_text
from search.draft.write import Written
from search.views import tables


def warn(line: str) -> None:
    """Print a warning."""
    print(f"warning: {line}", file=sys.stderr)


def hushed(quiet: bool) -> Callable[[str], None]:
    """Return what prints warnings, or where a command is to be quiet, nothing."""
    return (lambda line: None) if quiet else warn


def note(line: str) -> None:
    """Print what a user should know and need not do anything about."""
    print(line, file=sys.stderr)


def answer(as_json: bool, data: Any, show: Callable[[], None]) -> None:
    """Print data as JSON, or call what shows it."""
    if as_json:
        print(json_text(data))
    else:
        show()


def written(found: Written, as_json: bool) -> None:
    """Say what study file was written."""
    answer(as_json, found.plain(), lambda: tables.written(found))
    for line in found.warnings:
        warn(line)


def made(
    out: Path, digest: str, as_json: bool, uploaded: str | None = None, trial: int | None = None
) -> None:
    """Say what model folder was written, of which trial, and where it was uploaded to."""
    data: dict[str, Any] = {"out": str(out)} | ({} if trial is None else {"trial": trial})
    data["weights_digest"] = digest
    said = f"{out}: {'' if trial is None else f'trial {trial}, '}weights digest {digest}"
    if uploaded is not None:
        data["uploaded"], said = uploaded, f"{said}\n{uploaded}"
    answer(as_json, data, lambda: print(said))

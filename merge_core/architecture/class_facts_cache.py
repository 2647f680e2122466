"""Facts of model classes kept between runs: importing transformers takes longer than many merges.

One small JSON file per config and version of transformers, in ``$MERGETUNE_CACHE``, else in
``mergetune`` of the user's cache folder. A file that is missing or damaged is made anew; deleting
the folder loses nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from merge_core.atomic_write import write_whole
from merge_core.errors import CheckpointError
from merge_core.json_text import read_json

FORMAT = 6


def folder() -> Path:
    """Return where the files are."""
    given = os.environ.get("MERGETUNE_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mergetune"


def read(config: str) -> dict[str, Any] | None:
    """Return the facts kept for the text of a config, or None."""
    try:
        data = read_json(_file(config))
    except CheckpointError:  # not there, or not whole: it is made again
        return None
    return data if data.get("format") == FORMAT else None


def keep(config: str, facts: dict[str, Any]) -> None:
    """Keep the facts for the text of a config, where the disk lets us."""
    try:
        write_whole(_file(config), json.dumps({"format": FORMAT, **facts}))
    except OSError:  # a home that cannot be written to costs time, and nothing else
        return


def _file(config: str) -> Path:
    name = hashlib.sha256(f"{version('transformers')}\x1f{config}".encode()).hexdigest()
    return folder() / "architectures" / f"{name[:32]}.json"

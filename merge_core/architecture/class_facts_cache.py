"""Facts of model classes kept between runs: importing transformers takes longer than many merges.

One small JSON file per config and version of transformers, in ``$MERGETUNE_CACHE``, else in
``mergetune`` of the user's cache folder. A file that is missing or damaged is made anew; deleting
the folder loses nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from merge_core.atomic_write import write_whole
from merge_core.errors import CheckpointError
from merge_core.json_text import read_json

FORMAT = 7
FILES = re.compile(r"[0-9a-f]{32}\.json")


def folder() -> Path | None:
    """Return where the files are; None for a user without a home, who has none."""
    given, cache = (os.environ.get(name) for name in ("MERGETUNE_CACHE", "XDG_CACHE_HOME"))
    try:
        mine = Path(given) if given else Path(cache or Path.home() / ".cache") / "mergetune"
    except RuntimeError:
        return None
    return mine / "architectures"


def read(config: str) -> dict[str, Any] | None:
    """Return the facts kept for the text of a config, or None."""
    file = _file(config)
    try:
        data = {} if file is None else read_json(file)
    except CheckpointError:  # not there, or not whole: it is made again
        return None
    return data if data.get("format") == FORMAT else None


def keep(config: str, facts: dict[str, Any]) -> None:
    """Keep the facts for the text of a config, where the disk lets us."""
    file = _file(config)
    try:
        if file is not None:
            write_whole(file, json.dumps({"format": FORMAT, **facts}))
    except OSError:  # a home that cannot be written to costs time, and nothing else
        return


def _file(config: str) -> Path | None:
    name = hashlib.sha256(f"{version('transformers')}\x1f{config}".encode()).hexdigest()
    mine = folder()
    return None if mine is None else mine / f"{name[:32]}.json"

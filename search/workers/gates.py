"""Files of routers that a job needs or its result names, between machines that share no disk.

They are what one worker has made and another builds from, named by what they hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from merge_core.atomic_write import make_whole
from merge_core.recipe.schema import Recipe
from search.trial.router_file import FOLDER
from search.workers.cargo import RESULTS


def files_of(values: Iterable[Any], folder: Path) -> dict[str, bytes]:
    """Return name -> content of the trained routers that recipes of jobs or results name.

    Args:
        values: Jobs, results, or anything else.
        folder: The study's, which the names start from.
    """
    recipes = [getattr(value, "recipe", None) for value in values]
    found = {x.moe.gates for x in recipes if isinstance(x, Recipe) and x.moe and x.moe.gates}
    trained = [name for name in found if _is_ours(Path(name))]
    return {name: (folder / name).read_bytes() for name in trained if (folder / name).is_file()}


def _is_ours(name: Path) -> bool:
    """Return whether a name is of a file that a worker has made, in the folder of results."""
    inside = name.parts[0] == RESULTS and ".." not in name.parts
    return inside and name.parent.name == FOLDER


def keep(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files that are not there yet.

    Raises:
        OutputError: One cannot be written.
    """
    for name, content in files.items():
        if not (folder / name).exists():
            make_whole(folder / name, partial(Path.write_bytes, data=content))

"""A recipe that a study file names, as the study needs it: read from its file, or as stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_core.errors import MergeError, Problems
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe


@dataclass(frozen=True)
class Kept:
    """A recipe as a study has stored it, which a study file cannot say."""

    plain: Any


def read_recipe(data: Any, path: str, problems: Problems) -> Recipe | None:
    """Read a recipe file, or plain data that a study has stored; add what is wrong with it."""
    if not isinstance(data, Path):
        return recipe_reader.parse(data, path, problems)
    try:
        return recipe_reader.read(data)
    except MergeError as error:
        problems += [(path, line) for line in str(error).split("\n")]
        return None

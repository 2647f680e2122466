"""A recipe in, a plan or a model folder out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merge_core.merge.nested import plan
from merge_core.output import model_folder
from merge_core.parents.open import open_parents
from merge_core.plan.steps import Plan
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe
from merge_core.recipe.yaml_document import Document, parse_all

Folder = str | Path
Source = str | Path | Mapping[str, Any]  # a recipe file, YAML text, or what such text says


def merge(
    recipe: Source, out: Folder, *, folder: Folder | None = None, overwrite: bool = False
) -> str:
    """Merge a recipe into a new model folder and return its weights digest; see :func:`read`.

    Raises:
        DocumentError: The recipe breaks rules.
        MergeError: A parent cannot be used, or ``out`` is taken.
    """
    return model_folder.write(planned(recipe, folder), Path(out), overwrite=overwrite)


def planned(recipe: Source, folder: Folder | None = None) -> Plan:
    """Read a recipe, open its parents and plan it; see :func:`read`.

    Raises:
        DocumentError: The recipe breaks rules.
        MergeError: A parent cannot be used.
    """
    found, roots = read(recipe, folder)
    return plan(found, open_parents(found.references(), roots))


def read(recipe: Source, folder: Folder | None = None) -> tuple[Recipe, tuple[Path, ...]]:
    """Read a recipe in the mergekit dialect.

    Args:
        recipe: A file; YAML text, which has a line break or starts with ``{``; or a mapping.
        folder: Where relative model paths are tried from before the working directory; None is
            the folder of the file.

    Returns:
        The recipe, and the folders that its relative model paths are tried from.

    Raises:
        DocumentError: The recipe breaks rules.
        MergeError: There is no such file.
    """
    here = Path.cwd()
    if isinstance(recipe, Mapping):
        found = recipe_reader.of_documents([Document("recipe", dict(recipe), {})])
    elif isinstance(recipe, str) and ("\n" in recipe or recipe.lstrip().startswith("{")):
        found = recipe_reader.of_documents(parse_all(recipe, "recipe"))
    else:
        found, here = recipe_reader.read(Path(recipe)), Path(recipe).resolve().parent
    roots = (here if folder is None else Path(folder), Path.cwd())
    return found, tuple(dict.fromkeys(roots))

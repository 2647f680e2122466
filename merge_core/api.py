"""Recipe file in, model folder out."""

from __future__ import annotations

from pathlib import Path

from merge_core.merge.nested import plan
from merge_core.output import model_folder
from merge_core.parents.open import open_parents
from merge_core.plan.steps import Plan
from merge_core.recipe import read as recipe_reader


def merge(recipe_file: Path, out: Path, *, overwrite: bool = False) -> str:
    """Merge a recipe file into a new model folder and return its weights digest.

    Args:
        recipe_file: A recipe in the mergekit dialect; its relative model paths are tried from its
            own folder, then from the working directory.
        out: The folder to make.
        overwrite: Replace ``out`` if it exists.

    Raises:
        DocumentError: The recipe breaks rules.
        MergeError: A parent cannot be used, or ``out`` is taken.
    """
    return model_folder.write(planned(recipe_file), out, overwrite=overwrite)


def planned(recipe_file: Path) -> Plan:
    """Read a recipe file, open its parents and plan it.

    Raises:
        DocumentError: The recipe breaks rules.
        MergeError: A parent cannot be used.
    """
    recipe = recipe_reader.read(recipe_file)
    roots = (recipe_file.resolve().parent, Path.cwd())
    return plan(recipe, open_parents(recipe.references(), roots))

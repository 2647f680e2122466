"""A mixture whose routers a study trains: which recipe asks for that, and which one has them.

``gate_mode: trained`` without ``gates`` asks. What is stored of a trial is the recipe that names
the file of its routers, so that whatever builds it again reads them and trains nothing.
"""

from __future__ import annotations

from dataclasses import replace

from merge_core.recipe.schema import Recipe

FOLDER, TRAINED = "gates", "trained"  # in the folder of results; the gate mode


def asks(recipe: Recipe) -> bool:
    """Return whether a recipe's routers are to be trained."""
    return recipe.moe is not None and recipe.moe.gate_mode == TRAINED and recipe.moe.gates is None


def begun(recipe: Recipe) -> Recipe:
    """Return the mixture that training begins with, whatever its routers hold; others as they are.

    Only for building and planning: nobody wants a model with such routers.
    """
    if not asks(recipe) or recipe.moe is None:
        return recipe
    return replace(recipe, moe=replace(recipe.moe, gate_mode="uniform_random"))


def with_file(recipe: Recipe, file: str) -> Recipe:
    """Return a recipe that asks for training with the file of what was trained."""
    assert recipe.moe is not None
    return replace(recipe, moe=replace(recipe.moe, gates=file))


def without_file(recipe: Recipe) -> Recipe:
    """Return the recipe that asked for the training of one's routers; others as they are."""
    if recipe.moe is None or recipe.moe.gates is None:
        return recipe
    return replace(recipe, moe=replace(recipe.moe, gates=None))

"""Model folders without a recipe that refers to them."""

from pathlib import Path

from merge_core.parents.locate import Located, Place


def at(folder: Path, reference: str | None = None) -> Located:
    """Return the place of a model folder, under its own path if no reference is given."""
    return Located(reference or str(folder), Place(str(folder), folder))

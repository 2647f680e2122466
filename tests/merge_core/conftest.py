"""Recipes on the tiny families: read, planned, built, written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from merge_core import architecture, document, recipe_reader
from merge_core.candidate import Candidate
from merge_core.parent import SINGLE, Parent, open_parents
from merge_core.plan import Plan, plan
from merge_core.recipe import Recipe
from merge_core.writer import write

if TYPE_CHECKING:
    from torch import Tensor


def read_recipe(text: str) -> Recipe:
    """Read a recipe from YAML text."""
    found = document.parse(text, "recipe.yaml")
    problems: list[tuple[str, str]] = []
    recipe = recipe_reader.parse(found.data, "", problems)
    found.fail(problems)
    assert recipe is not None
    return recipe


def change(folder: Path, **tensors: Tensor | None) -> None:
    """Replace, add or (with None) remove tensors of a model folder; ``__`` stands for a dot."""
    from safetensors.torch import load_file, save_file

    stored = load_file(folder / SINGLE)
    for name, tensor in tensors.items():
        stored.pop(name.replace("__", "."), None)
        if tensor is not None:
            stored[name.replace("__", ".")] = tensor
    save_file(stored, folder / SINGLE, metadata={"format": "pt"})


@dataclass(frozen=True)
class Planned:
    """A plan and its parents."""

    plan: Plan
    parents: dict[str, Parent]

    def build(self) -> tuple[str, Any]:
        """Return weights digest and live model of a new candidate."""
        candidate = Candidate(self.parents)
        return candidate.build(self.plan), candidate.model

    def write(self, out: Path, **options: Any) -> str:
        """Write the model folder; return its weights digest."""
        return write(self.plan, self.parents, out, **options)


@pytest.fixture(scope="session")
def facts() -> dict[Path, architecture.Architecture]:
    return {}


@pytest.fixture
def planned(
    family: Callable[..., Path], facts: dict[Path, architecture.Architecture]
) -> Callable[..., Planned]:
    """Return the plan of a recipe text on a family, or on the models in ``root``."""

    def get(
        text: str, kind: str = "llama-tied", dtype: str = "float32", root: Path | None = None
    ) -> Planned:
        recipe = read_recipe(text)
        parents = open_parents(recipe.references(), [root or family(kind, dtype)])
        folder = parents[recipe.base_model or recipe.models[0].model].folder
        if root is not None or folder not in facts:
            facts[folder] = architecture.read(folder)
        return Planned(plan(recipe, parents, facts[folder]), parents)

    return get

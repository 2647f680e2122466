"""Recipes on the tiny families: read, planned, built, written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from merge_core.merge.nested import plan
from merge_core.numerics.weights_hash import combined, tensor_digest
from merge_core.output.live_model import Candidate
from merge_core.output.model_folder import write
from merge_core.parents.open import open_parents
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import SINGLE
from merge_core.plan.steps import Plan
from merge_core.recipe import read as recipe_reader
from merge_core.recipe import yaml_document
from merge_core.recipe.schema import Recipe

if TYPE_CHECKING:
    from torch import Tensor


def weights_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the digest that a model of these named tensors has."""
    return combined(tensor_digest(name, tensor) for name, tensor in tensors)


def read_recipe(text: str) -> Recipe:
    """Read a recipe from YAML text."""
    return recipe_reader.of_documents(yaml_document.parse_all(text, "recipe.yaml"))


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

    @property
    def parents(self) -> dict[str, Parent]:
        """The opened parents."""
        return dict(self.plan.opened)

    def build(self) -> tuple[str, Any]:
        """Return weights digest and live model of a new candidate."""
        candidate = Candidate()
        return candidate.build(self.plan), candidate.model

    def write(self, out: Path, **options: Any) -> str:
        """Write the model folder; return its weights digest."""
        return write(self.plan, out, **options)


@pytest.fixture
def planned(family: Callable[..., Path]) -> Callable[..., Planned]:
    """Return the plan of a recipe text on a family, or on the models in ``root``."""

    def get(
        text: str, kind: str = "llama-tied", dtype: str = "float32", root: Path | None = None
    ) -> Planned:
        recipe = read_recipe(text)
        return Planned(
            plan(recipe, open_parents(recipe.references(), [root or family(kind, dtype)]))
        )

    return get


@pytest.fixture
def mergekit(tmp_path: Path) -> Callable[[str, Path], dict[str, Tensor]]:
    """Return the weights that mergekit's own YAML path writes for a recipe of ours."""
    pytest.importorskip("mergekit", reason="the oracle is a development dependency")
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    from safetensors.torch import load_file

    def run(text: str, root: Path) -> dict[str, Tensor]:
        recipe = read_recipe(text)
        places = {name: str(root / name) for name in recipe.references()}
        data = yaml.safe_load(recipe.with_references(places).to_yaml())
        options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
        run_merge(MergeConfiguration.model_validate(data), str(tmp_path / "mergekit"), options)
        (file,) = (tmp_path / "mergekit").glob("*.safetensors")
        return load_file(file)

    return run


@pytest.fixture
def ours(
    planned: Callable[..., Planned], tmp_path: Path
) -> Callable[..., tuple[dict[str, Tensor], set[str]]]:
    """Return the weights that we write for a recipe, and what was dropped."""
    from safetensors.torch import load_file

    def run(text: str, kind: str, dtype: str) -> tuple[dict[str, Tensor], set[str]]:
        made = planned(text, kind, dtype)
        made.write(tmp_path / "ours", overwrite=True)
        return load_file(tmp_path / "ours" / SINGLE), set(made.plan.dropped)

    return run

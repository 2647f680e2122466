"""mergetune from Python: merge recipes, build and score models, run and read studies.

What ``__all__`` names is public, all else private. A recipe is a file, YAML text or a mapping in
the mergekit dialect. Its relative model paths are tried from ``folder`` (if not given, that of the
file), then from the working directory. Every function raises ``MergeError``, a builtin error
besides, with what to do about it; of what a recipe says in vain Python warns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mergetune.own_packages  # noqa: F401  before the imports below: see there

# isort: split
from evaluators.consent import consent
from evaluators.protocol import Evaluator, LiveModel, Suite
from merge_core import api
from merge_core.api import Folder, Source
from merge_core.output.live_model import Candidate
from merge_core.output.model_folder import write_shell
from merge_core.parents.open import open_parents as open_all
from merge_core.parents.protocol import Parent
from merge_core.tokenizer.parent_tokenizer import open_tokenizer
from mergetune import frames
from mergetune.frames import Study

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["__version__", "build", "consent", "merge", "open_parents", "open_study", "run", "score"]
__version__ = version("mergetune")


def merge(
    recipe: Source, out: Folder, *, folder: Folder | None = None, overwrite: bool = False
) -> str:
    """Merge a recipe into the new model folder ``out`` and return its weights digest."""
    return api.merge(recipe, out, folder=folder, overwrite=overwrite)


def open_parents(recipe: Source, *, folder: Folder | None = None) -> Mapping[str, Parent]:
    """Open a recipe's models, by reference; each has ``config``, ``tensors``, ``digest``, ..."""
    found, roots = api.read(recipe, folder)
    return open_all(found.recipe.references(), roots)


def build(
    recipe: Source, *, folder: Folder | None = None, device: str = "cpu", batch_size: int = 64
) -> LiveModel:
    """Merge a recipe in memory: ``model``, ``tokenizer``, and the ``engine`` that asks them."""
    from evaluators.engines.hf.engine import live_model  # imports torch

    plan, candidate = api.planned(recipe, folder), Candidate(device)
    candidate.build(plan)
    with tempfile.TemporaryDirectory(prefix="mergetune-") as shell:
        write_shell(plan, Path(shell))
        tokenizer = open_tokenizer(Path(shell))
    return live_model(candidate.model, tokenizer, batch_size=batch_size)


def score(
    model: LiveModel,
    evaluator: Evaluator | Suite | Mapping[str, Any],
    *,
    folder: str | Path = ".",
    limit: int | None = None,
) -> pd.Series[float]:
    """Score a model (see :func:`build`) item by item.

    Args:
        model: Is left as it was.
        evaluator: An entry as under ``score`` in a study file, or what opening one gives.
        folder: Where an entry's relative paths start.
        limit: Score the first so many items of each task only.

    Returns:
        One score for each task and item id, in the task's own direction.
    """
    return frames.scored(model, evaluator, Path(folder), limit)


def open_study(study: str | Path, name: str | None = None) -> Study:
    """Open a study that has begun: a file, its folder, a bundle (.zip), or a storage URL."""
    return Study(study, name)


def run(study: str | Path, *, prior: Sequence[str | Path] = (), **options: Any) -> Study:
    """Start or resume a study; ``options`` are those of ``mergetune run``, see ``frames.ran``."""
    return frames.ran(Path(study), [*map(str, prior)], **options)

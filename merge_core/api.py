"""A recipe in, a plan or a model folder out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from merge_core.atomic_write import check_free
from merge_core.errors import Notices, ParameterError
from merge_core.merge.nested import plan, unmatched_filters
from merge_core.output.model_folder import USUAL, Writing, write
from merge_core.parents.open import open_parents
from merge_core.parents.weight_files import shapes_of
from merge_core.plan import stack_fit
from merge_core.plan.steps import Plan
from merge_core.recipe.read import Reading, reading_of
from merge_core.recipe.schema import Recipe
from merge_core.recipe.yaml_document import Document, parse_all, read_all
from merge_core.tokenizer.chat_template import check_chat_templates

Folder = str | Path
Tell = Callable[[str], None]
Source = str | Path | Mapping[str, Any]  # a recipe file, YAML text, or what such text says


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=5)


def merge(
    recipe: Source,
    out: Folder,
    *,
    tell: Tell = _warn,
    folder: Folder | None = None,
    overwrite: bool = False,
    strict: bool = False,
    seed: int | None = None,
    how: Writing = USUAL,
) -> str:
    """Merge a recipe into a new model folder and return its weights digest; see :func:`planned`.

    Args:
        recipe: See :func:`read`.
        out: The folder to make.
        tell: See :func:`planned`.
        folder: See :func:`read`.
        overwrite: Replace ``out`` if mergetune wrote it.
        strict: See :func:`planned`.
        seed: Of random masks, instead of the recipe's and its documents' own.
        how: How the folder is written.

    Raises:
        DocumentError: The recipe breaks rules.
        MergeError: A parent cannot be used, or ``out`` is taken.
    """
    check_free(Path(out), overwrite=overwrite)  # before hours of fetching models
    plan = planned(recipe, folder, tell=tell, strict=strict, seed=seed)
    return write(plan, Path(out), overwrite=overwrite, how=how)


def moe(
    config: Source,
    out: Folder,
    *,
    tell: Tell = _warn,
    folder: Folder | None = None,
    overwrite: bool = False,
    strict: bool = False,
    seed: int | None = None,
    how: Writing = USUAL,
) -> str:
    """Make a mixture of experts as :func:`merge` does, of a configuration of mergekit-moe, too.

    Raises:
        DocumentError: It breaks rules.
        ParameterError: It has no experts.
        MergeError: A parent cannot be used, or ``out`` is taken.
    """
    check_free(Path(out), overwrite=overwrite)
    check_mixture(config, folder)
    plan = planned(config, folder, tell=tell, strict=strict, seed=seed)
    return write(plan, Path(out), overwrite=overwrite, how=how)


def check_mixture(config: Source, folder: Folder | None = None) -> None:
    """Refuse what makes no mixture of experts.

    Raises:
        DocumentError: It breaks rules.
        ParameterError: It has no experts.
    """
    found, _ = read(config, folder)
    if found.recipe.moe is None:
        raise ParameterError(
            f"{found.notices.file}: has no experts and no moe; merge such a recipe with "
            f"mergetune merge"
        )


def planned(
    recipe: Source,
    folder: Folder | None = None,
    *,
    tell: Tell = _warn,
    strict: bool = False,
    seed: int | None = None,
) -> Plan:
    """Read a recipe, open its parents and plan it.

    Args:
        recipe: See :func:`read`.
        folder: See there, too.
        tell: Is called with a line for all that the recipe says in vain, and one for what is left
            out of the parents; else Python warns.
        strict: That is an error.
        seed: Of random masks, instead of the recipe's and its documents' own.

    Raises:
        DocumentError: The recipe breaks rules.
        MergeError: A parent cannot be used.
    """
    found, roots = read(recipe, folder)
    if strict:
        found.notices.refuse()
    if seed is not None:
        found = replace(found, recipe=_seeded(found.recipe, seed))
    check_chat_templates(found.recipe)
    opened = open_parents(found.recipe.references(), roots)
    stack_fit.check(found, {name: shapes_of(parent.tensors) for name, parent in opened.items()})
    made = plan(found.recipe, opened)
    idle = Notices(found.notices.file, (*found.notices.found, *unmatched_filters(found, made)))
    if strict:
        idle.refuse()
    for line in idle.lines():
        tell(line)
    for line in filter(None, (made.lost(), made.head_of_another(), made.running_statistics())):
        tell(line)
    return made


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    documents = tuple(_seeded(document, seed) for document in recipe.documents)
    return replace(recipe, seed=seed, documents=documents)


def read(recipe: Source, folder: Folder | None = None) -> tuple[Reading, tuple[Path, ...]]:
    """Read a recipe in the mergekit dialect.

    Args:
        recipe: A file; YAML text, which has a line break or starts with ``{``; or a mapping.
        folder: Where relative model paths are tried from before the working directory; None is
            the folder of the file.

    Returns:
        The recipe as it stands there, and the folders that its relative model paths are tried from.

    Raises:
        DocumentError: The recipe breaks rules.
        MergeError: There is no such file.
    """
    here = Path.cwd()
    if isinstance(recipe, Mapping):
        documents = [Document("recipe", dict(recipe), {})]
    elif isinstance(recipe, str) and ("\n" in recipe or recipe.lstrip().startswith("{")):
        documents = parse_all(recipe, "recipe")
    else:
        documents, here = read_all(Path(recipe)), Path(recipe).resolve().parent
    roots = (here if folder is None else Path(folder), Path.cwd())
    return reading_of(documents), tuple(dict.fromkeys(roots))

"""A draft of a study -> a file that ``check`` accepts and a run can begin, or why there is none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from merge_core.atomic_write import make_folder, write_whole
from merge_core.errors import DocumentError, MergeError, OutputExistsError
from merge_core.parents.locate import not_local
from merge_core.recipe.schema import Recipe
from merge_core.recipe.yaml_document import Document, parse
from search.draft.commented import commented
from search.draft.items import share_out
from search.run import check as checks
from search.scoring.objectives import named, opened_entry, sharing
from search.scoring.pools import Sharing
from search.space.space import Space
from search.space.starting_points import STARTED, baselines, defaults
from search.space.units import Drawn
from search.spec import json_schema, study_file
from search.spec.sections import Engine, Items
from search.spec.study_file import StudySpec
from search.trial.builder import Builder

START = "start"
Start = Callable[[Space], Mapping[str, Drawn]]
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Draft:
    """A study file before it is written.

    Args:
        recipe, score, search: Its sections, as plain data.
        comments: Key path -> comment; see ``commented``.
        head: Paragraphs above all.
        known: Items of each entry of ``score``; None where that is not known.
        baselines: Name -> recipe, each written into a file beside it.
        start: Gives the point of the space that the search starts from, where no range says it.
        started: The recipe of that point, which stands in a file beside it, too.
        most: Items that may steer; None: as many as a study has by itself.
        notes: What it was made of and is not in it, or in another way: key path there -> text.
    """

    recipe: Mapping[str, Any]
    score: Sequence[Mapping[str, Any]]
    search: Mapping[str, Any]
    comments: Mapping[str, str]
    head: Sequence[str]
    known: Sequence[int | None]
    baselines: Mapping[str, Recipe] = field(default_factory=dict)
    start: Start | None = None
    started: Recipe | None = None
    most: int | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """What was written, what ``check`` says of it, and what is not in it."""

    files: tuple[Path, ...]  # the study file first
    facts: Mapping[str, Any]
    warnings: Sequence[str]
    notes: Mapping[str, str]

    def plain(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return {
            "files": [str(file) for file in self.files],
            "notes": dict(self.notes),
            "check": dict(self.facts),
            "warnings": list(self.warnings),
        }


def study_file_of(out: Path) -> Path:
    """Return the study file that a path stands for: itself, or the one in that folder.

    Raises:
        OutputExistsError: It is there already.
    """
    file = out if out.suffix in SUFFIXES else out / study_file.FILE
    _free(file)
    return file


def _free(file: Path) -> None:
    if file.exists() or file.is_symlink():
        raise OutputExistsError(f"{file}: exists and is left as it is; name another with --out")


def beside(file: Path, name: str) -> Path:
    """Return the file of a baseline's recipe beside a study file."""
    start = "" if file.name == study_file.FILE else f"{file.stem}-"
    return file.with_name(f"{start}{name}.yaml")


def write(draft: Draft, file: Path, *, tasks: bool) -> Written:
    """Write a study file and its baselines' recipes, once all of it is seen to do.

    Args:
        draft: The study.
        file: See :func:`study_file_of`.
        tasks: Open tokenizer and tasks, where the models are on this disk.

    Raises:
        OutputExistsError: A file is there already.
        MergeError: ``check`` would refuse it, or its models do not go together.
    """
    for one in (file, *(beside(file, name) for name in (*draft.baselines, START))):
        _free(one)
    with _folder(file.parent):
        return _written(draft, file, tasks=tasks)


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Make a folder, which relative paths start from; if there is nothing to write, unmake it."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    make_folder(folder)
    try:
        yield
    except BaseException:
        for one in new:
            one.rmdir()
        raise


def _written(draft: Draft, file: Path, *, tasks: bool) -> Written:
    first = Document(str(file), _data(draft, file, {"search": 1, "select": 1}), {})
    spec = _read(first, draft, file)
    builder = _builder(spec, draft)
    if builder and draft.start:
        draft = _started(draft, builder.space, draft.start)
    items = _opened_items(spec, builder.tokenizer) if builder and tasks else _known_items(draft)
    counts, why = _counts(items, draft)
    text = commented(_data(draft, file, counts), {"items": why, **draft.comments}, draft.head)
    text = f"{json_schema.MARK}\n{text}"
    spec = _read(parse(text, str(file)), draft, file)
    if builder:
        baselines(spec, builder.space)
    files = {beside(file, name): recipe for name, recipe in _recipes(draft).items()}
    for path, recipe in files.items():
        write_whole(path, recipe.to_yaml())
    write_whole(file, text)
    schema = file.with_name(json_schema.FILE)
    if not schema.exists():
        write_whole(schema, json_schema.text())
    found = checks.check(file)
    return Written((file, *files), found.facts, found.warnings, draft.notes)


def _started(draft: Draft, space: Space, start: Start) -> Draft:
    """Return a draft with a recipe to start from."""
    why = "the recipe's numbers as far as the ranges can say them"
    comments = {**draft.comments, f"search.{START}": why}
    return replace(draft, comments=comments, started=space.recipe(start(space)))


def _recipes(draft: Draft) -> dict[str, Recipe]:
    """Return name -> recipe of all that stands in files beside the study file."""
    return {**draft.baselines, **({} if draft.started is None else {START: draft.started})}


def _data(draft: Draft, file: Path, counts: Mapping[str, Any]) -> dict[str, Any]:
    files = {name: beside(file, name).name for name in draft.baselines}
    start = {} if draft.started is None else {START: beside(file, START).name}
    sections = {"recipe": dict(draft.recipe), "score": list(draft.score), "items": counts}
    search = {**draft.search, **start}
    return {**sections, "search": search, **({"baselines": files} if files else {})}


def _read(document: Document, draft: Draft, file: Path) -> StudySpec:
    """Read a draft as ``check`` would read the file.

    Raises:
        MergeError: It breaks rules.
    """
    stored = {name: recipe.plain() for name, recipe in draft.baselines.items()}
    if draft.started is not None:
        stored[f"{STARTED}{beside(file, START).name}"] = draft.started.plain()
    try:
        return study_file.of_document(document, Path(os.path.abspath(file.parent)), stored)
    except DocumentError as error:
        wrong = "; ".join(f"{problem.path}: {problem.rule}" for problem in error.problems)
        raise MergeError(f"{file}: is not written, since {wrong}") from error


def _builder(spec: StudySpec, draft: Draft) -> Builder | None:
    """Return what has planned a candidate and the baselines; None where models are not here.

    Raises:
        MergeError: The models do not go together.
    """
    if any(not_local(name, spec.roots) for name in spec.template.references()):
        return None
    mapped = spec.model_copy(update={"engine": Engine(device="cpu", parents="mapped")})
    builder = Builder(mapped)
    for recipe in (builder.space.recipe(defaults(builder.space)), *draft.baselines.values()):
        builder.plan(recipe)
    return builder


def _opened_items(spec: StudySpec, tokenizer: Any) -> Sharing:
    """Open all tasks; return what pools are made of.

    Raises:
        MergeError: One cannot be opened.
    """
    opened = [opened_entry(spec, i, tokenizer)[0] for i in range(len(spec.scores))]
    return sharing(named(spec, opened).evaluators)


def _known_items(draft: Draft) -> Sharing | None:
    if None in draft.known:
        return None
    ids = {f"{i}": [f"{i}.{k}" for k in range(n or 0)] for i, n in enumerate(draft.known)}
    return Sharing(ids)


def _counts(items: Sharing | None, draft: Draft) -> tuple[dict[str, Any], str]:
    if items is not None:
        return share_out(items, draft.most, int(draft.search["seed"]))
    most = draft.most or Items().search
    counts = {"search": most, "select": most, "report": "rest"}
    return counts, "for as many items as there may be: the tasks were not opened, check does that"

"""study.yaml -> StudySpec; every problem at once, with file, line and key path.

The recipe section is the mergekit dialect with ranges in it (``recipe_template``). Nothing heavy is
imported: a study file is checked in a moment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from merge_core.errors import Notices, Problems, join, shown
from merge_core.recipe.schema import Recipe
from merge_core.recipe.yaml_document import Document
from merge_core.recipe.yaml_document import read as read_document
from merge_core.validation import StrictModel, Words, failed, read_by
from merge_core.validation import read as read_model
from search.samplers.registry import find
from search.spec.recipe_file import Kept, read_recipe
from search.spec.recipe_template import Template
from search.spec.recipe_template import parse as parse_template
from search.spec.score import Kind, Scores, refusal
from search.spec.sections import KEEP_ANSWERS, START, Engine, Items, Search
from search.spec.storage_url import filled, in_folder, masked, storage_file, variables
from search.spec.study_name import split

FILE = "study.yaml"
BUNDLE = "manifest.json"  # lies beside the study file of a bundle that is unpacked
# names in the report, and what others there begin with
OURS = (
    *("base", "uniform", "defaults", "winner"),
    *("parent:", "simple:", "front:", "start:", "prior:", "mean:"),
)
Text = Annotated[str, Field(min_length=1)]


def _free(baselines: dict[str, Recipe]) -> dict[str, Recipe]:
    taken = [name for name in baselines if name in OURS or name.startswith(OURS[4:])]
    if taken:
        rule = "a name that the report uses itself; choose another"
        raise failed(((name,), rule) for name in taken)
    return baselines


class StudyFile(StrictModel):
    """What a study file says.

    Args:
        name: Of the study in its storage; its folder's, if there is none.
        template: The recipe with its knobs.
        scores: The tasks, at least one.
        aggregate: How they become the one number of a trial.
        items, search, engine: The sections of these names.
        baselines: Recipes that the user wants measured beside the built-in baselines, by name.
        keep_answers: Report items whose answers are kept, over all tasks together, of each of the
            winner, parents, base and uniform merge; at least one a task, 0: none.
        storage: An Optuna storage URL, with environment variables for ``${NAME}``; a relative
            SQLite path starts at the file's folder.
    """

    name: Text = ""
    template: Annotated[Template, read_by(parse_template)] = Field(
        validation_alias="recipe", title="required: a mergekit recipe with ranges in it"
    )
    scores: Scores = Field(validation_alias="score")
    aggregate: Kind = "mean"
    items: Items = Items()
    engine: Engine = Engine()
    search: Search = Search()
    baselines: Annotated[
        dict[str, Annotated[Recipe, read_by(read_recipe)]],
        BeforeValidator(lambda data: {} if data is None else data),
        AfterValidator(_free),
        Words("names with recipe files"),
    ] = Field({})
    keep_answers: int = Field(KEEP_ANSWERS, ge=0, le=1000)
    storage: Annotated[Text, AfterValidator(filled)] = Field(
        "sqlite:///results/study.db", repr=False
    )

    @field_validator("aggregate")
    @classmethod
    def _fits_the_tasks(cls, kind: Kind, info: ValidationInfo) -> Kind:
        rule = refusal(kind, info.data.get("scores", ()))
        if rule:
            raise ValueError(rule)
        return kind

    @field_validator("search")
    @classmethod
    def _can_be_sampled(cls, search: Search, info: ValidationInfo) -> Search:
        plugin, template = find(search.sampler), info.data.get("template")
        rules = []
        if info.data.get("aggregate") == "apart" and not plugin.several:
            rules.append(
                "has one objective, `aggregate: apart` several; use 'auto', 'tpe' or 'nsga2'"
            )
        if template and template.chooses and not plugin.choices:
            rules.append("cannot draw from choices; use 'auto', 'catcma', 'tpe' or 'random'")
        if rules:
            raise failed((("sampler",), f"{search.sampler!r} {rule}") for rule in rules)
        return search

    @field_validator("search")
    @classmethod
    def _has_slopes(cls, search: Search, info: ValidationInfo) -> Search:
        kind, engine = (info.data.get(key) for key in ("aggregate", "engine"))
        rule = without_gradient(kind or "mean", engine or Engine())
        if search.sampler == "gradient" and rule:
            raise failed([(("sampler",), f"'gradient': {rule}; use 'auto'")])
        return search

    @field_validator("engine")
    @classmethod
    def _can_train(cls, engine: Engine, info: ValidationInfo) -> Engine:
        template = info.data.get("template")
        if template and template.trained and engine.name != "hf":
            rule = f"gate_mode: trained needs `engine: {{name: hf}}`, got {engine.name}"
            raise failed([(("name",), rule)])
        return engine


def without_gradient(kind: Kind, engine: Engine) -> str | None:
    """Return why a study file rules out a search by gradient, or None: it does not."""
    if kind == "apart":
        return "it has one objective, `aggregate: apart` several"
    return None if engine.name == "hf" else f"it needs `engine: {{name: hf}}`, got {engine.name}"


class StudySpec(StudyFile):
    """A checked study file, with the folder that it stands in.

    Args:
        folder: Of the study file; relative paths start there.
        results: The folder that holds what the study finds: ``results``, and in it one with the
            file's name where that is not ``study.yaml``.
        variables: Environment variables whose values stand in ``storage``.
        data: The whole file as plain data, what is stored and compared on resume; no passwords.
        notices: What its recipe says in vain, and where.
    """

    folder: Path
    results: Path
    variables: tuple[str, ...]
    data: Mapping[str, Any]
    notices: Notices = Field(exclude=True)

    def called(self, name: str | None) -> StudySpec:
        """Return the study under another name, unless that is None."""
        if name is None:
            return self
        return self.model_copy(update={"name": name, "data": {**self.data, "name": name}})

    @property
    def unnamed(self) -> bool:
        """Whether only the folder gives its name, and its database lies in there."""
        file = storage_file(self.storage)
        inside = file is not None and Path(os.path.abspath(self.folder)) in file.parents
        return "name" not in self.data and inside

    @property
    def recipes(self) -> dict[str, Recipe]:
        """The recipes of other files: the baselines, and the start."""
        start = self.search.start
        return {**self.baselines, **({} if start is None else {self.start_name: start})}

    @property
    def start_name(self) -> str:
        """Name of the trial that is the start."""
        return _start_name(self.data)

    @property
    def roots(self) -> tuple[Path, ...]:
        """Where relative model references are tried from.

        A bundle names models as the study did, and holds none: they are looked for where it lies.
        """
        beside = [self.folder.parent] if (self.folder / BUNDLE).is_file() else []
        return (self.folder, *beside, Path.cwd())


def file_of(path: Path) -> Path:
    """Return the file of a STUDY: itself, or in a folder ``study.yaml``; without ``#name``."""
    place = Path(split(str(path))[0])
    return place / FILE if place.is_dir() else place


def read(path: Path) -> StudySpec:
    """Read a study file.

    Args:
        path: The file, or the folder that holds it as ``study.yaml``; ``#name`` at its end calls
            the study so.

    Raises:
        MergeError: There is no such file.
        DocumentError: It breaks rules; all problems at once.
    """
    file, name = file_of(path), split(str(path))[1]
    spec = of_document(read_document(file), Path(os.path.abspath(file)).parent).called(name)
    if file.name == FILE:
        return spec
    return spec.model_copy(update={"results": spec.results / file.stem})


def of_document(
    document: Document, folder: Path, stored: Mapping[str, Any] | None = None
) -> StudySpec:
    """Turn a document into a study.

    Args:
        document: The study file, or the same data from a database.
        folder: Where its relative paths start.
        stored: The baselines' recipes as plain data, and that of the start, where their files are
            not to be read.

    Raises:
        DocumentError: It breaks rules; all problems at once.
    """
    data = document.data
    if not isinstance(data, dict):
        document.fail([("(file)", f"expected a study (a mapping), got {shown(data)}")])
    start = _start_name(data)
    kept = {name: recipe for name, recipe in (stored or {}).items() if name != start}
    baselines = data.get("baselines") if stored is None else kept
    if stored is None and isinstance(baselines, dict):
        baselines = {name: folder / str(file) for name, file in baselines.items()}
    problems: Problems = []
    read = {**data, "baselines": baselines, "search": _with_start(data, folder, stored)}
    if "search" not in data:
        del read["search"]
    if stored is not None:  # what was opened needs no storage, nor the variables in it
        read.pop("storage", None)
    said = read_model(StudyFile, read, "", problems)
    document.fail(problems)
    text = data.get("storage")
    named = variables(text) if isinstance(text, str) else ()
    if isinstance(text, str):
        data = {**data, "storage": masked(text)}
    search = data.get("search")
    if isinstance(search, dict) and isinstance(search.get("prior"), str):
        data = {**data, "search": {**search, "prior": masked(search["prior"])}}
    found = {**dict(said or ()), "folder": folder, "data": data, "variables": named}
    found["results"] = folder / "results"
    idle = [(join("recipe", where), rule) for where, rule in found["template"].notices]
    found["notices"] = Notices(document.file, document.placed(idle))
    found["name"] = found["name"] or folder.name
    found["storage"] = in_folder(found["storage"], folder)
    return StudySpec.model_construct(**found)


def _with_start(data: Mapping[str, Any], folder: Path, stored: Mapping[str, Any] | None) -> Any:
    """Return the section ``search`` with the start's file, or its recipe, in place of its name."""
    search = data.get("search")
    if not isinstance(search, dict) or not isinstance(search.get(START), str):
        return search
    recipe = folder / search[START] if stored is None else Kept(stored.get(_start_name(data)))
    return {**search, START: recipe}


def _start_name(data: Mapping[str, Any]) -> str:
    search = data.get("search")
    return f"start:{search.get(START)}" if isinstance(search, dict) else ""

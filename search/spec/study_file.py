"""study.yaml -> StudySpec; every problem at once, with file, line and key path.

The recipe section is the mergekit dialect with ranges in it (``template``); the rest is read here.
Nothing heavy is imported: a study file is checked in a moment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from merge_core.errors import MergeError, Problems, hint, join, shown
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe
from merge_core.recipe.yaml_document import Document
from merge_core.recipe.yaml_document import read as read_document
from search.samplers.registry import SAMPLERS
from search.spec.engine import Engine
from search.spec.recipe_template import Template
from search.spec.recipe_template import parse as parse_template
from search.spec.score import Kind, Score, read_aggregate, read_scores

FILE = "study.yaml"
KEYS = ("name", "recipe", "score", "aggregate", "items", "search", "engine", "baselines", "storage")
OURS = (
    "base",
    "uniform",
    "defaults",
    "winner",
    "parent:",
    "simple:",
    "front:",
)  # names in the report
MAY_CHANGE = ("search.trials", "search.hours")  # in a study that has begun: only its length


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Items(_Section):
    """How many items each pool gets, over all tasks together; ``rest``: what the others leave."""

    search: int = Field(300, ge=1)
    select: int = Field(300, ge=1)
    report: Annotated[int, Field(ge=1)] | Literal["rest"] = "rest"


class Search(_Section):
    """How candidates are proposed and when that ends."""

    sampler: str = "auto"
    seed: int = Field(0, ge=0, lt=2**63)
    trials: int = Field(100, ge=1)
    hours: float | None = Field(None, gt=0)
    finalists: int = Field(8, ge=1)


@dataclass(frozen=True)
class StudySpec:
    """A checked study file.

    Args:
        name: Of the study in its storage.
        folder: Of the study file; relative paths start there.
        template: The recipe with its knobs.
        scores: The tasks, at least one.
        aggregate: How they become the one number of a trial.
        items, search, engine: The sections of these names.
        baselines: Recipes that the user wants measured beside the built-in baselines, by name.
        storage: An Optuna storage URL; a relative SQLite path starts at ``folder``.
        data: The whole file as plain data; what is stored and compared on resume.
    """

    name: str
    folder: Path
    template: Template
    scores: tuple[Score, ...]
    aggregate: Kind
    items: Items
    search: Search
    engine: Engine
    baselines: Mapping[str, Recipe]
    storage: str
    data: Mapping[str, Any]

    @property
    def results(self) -> Path:
        """The folder that holds what the study finds."""
        return self.folder / "results"

    @property
    def roots(self) -> tuple[Path, ...]:
        """Where relative model references are tried from."""
        return (self.folder, Path.cwd())


def read(path: Path) -> StudySpec:
    """Read a study file.

    Args:
        path: The file, or the folder that holds it as ``study.yaml``.

    Raises:
        MergeError: There is no such file.
        DocumentError: It breaks rules; all problems at once.
    """
    file = path / FILE if path.is_dir() else path
    return of_document(read_document(file), Path(os.path.abspath(file)).parent)


def of_document(
    document: Document, folder: Path, stored: Mapping[str, Any] | None = None
) -> StudySpec:
    """Turn a document into a study.

    Args:
        document: The study file, or the same data from a database.
        folder: Where its relative paths start.
        stored: The baselines' recipes as plain data, where their files are not to be read.

    Raises:
        DocumentError: It breaks rules; all problems at once.
    """
    problems: Problems = []
    data = document.data
    if not isinstance(data, dict):
        document.fail([("(file)", f"expected a study (a mapping), got {shown(data)}")])
    problems.extend((str(k), f"unknown key{hint(str(k), KEYS)}") for k in data if k not in KEYS)
    if "recipe" not in data:
        problems.append(("recipe", "required: a mergekit recipe with ranges in it"))
    template = parse_template(data["recipe"], "recipe", problems) if "recipe" in data else None
    name, storage = _text(data, "name", problems), _text(data, "storage", problems)
    scores = read_scores(data.get("score"), problems)
    aggregate = read_aggregate(data.get("aggregate", "mean"), scores, problems)
    items = _section(Items, data, "items", problems)
    search = _section(Search, data, "search", problems)
    engine = _section(Engine, data, "engine", problems)
    problems.extend(engine.misplaced())
    _check_sampler(search, template, aggregate, problems)
    if stored is None:
        baselines = _baselines(data.get("baselines"), folder, problems)
    else:
        baselines = _stored_baselines(stored, problems)
    document.fail(problems)
    assert template is not None
    return StudySpec(
        name=name or folder.name,
        folder=folder,
        template=template,
        scores=scores,
        aggregate=aggregate,
        items=items,
        search=search,
        engine=engine,
        baselines=baselines,
        storage=_storage(storage, folder),
        data=data,
    )


def changed_paths(old: Any, new: Any, path: str = "") -> list[str]:
    """Return the key paths at which two studies' plain data differ, those that may change aside."""
    if path in MAY_CHANGE:
        return []
    if isinstance(old, dict) or isinstance(new, dict):
        old, new = ({} if data is None else data for data in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        pairs = [(join(path, key), old.get(key), new.get(key)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(join(path, i), a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:  # true is 1 to Python, not to a reader
        return [] if old == new and isinstance(old, bool) == isinstance(new, bool) else [path]
    return [found for where, a, b in pairs for found in changed_paths(a, b, where)]


def _text(data: dict[str, Any], key: str, problems: Problems) -> str | None:
    value = data.get(key)
    if key in data and (not isinstance(value, str) or not value):
        problems.append((key, f"expected a text, got {shown(value)}"))
        return None
    return value


def _section(kind: type[Any], data: dict[str, Any], key: str, problems: Problems) -> Any:
    given = data.get(key, {})
    if not isinstance(given, dict):
        problems.append((key, f"expected a mapping, got {shown(given)}"))
        return kind()
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        # one rule a key: of a union's branches, each a problem to pydantic, the last says it all
        rules = {str(e["loc"][0]): _rule(e, kind) for e in error.errors()}
        problems.extend((join(key, name), rule) for name, rule in rules.items())
        return kind.model_validate({name: given[name] for name in given if name not in rules})


def _rule(found: Any, kind: type[BaseModel]) -> str:
    """Return a pydantic error in the words of the file's language."""
    got = shown(found["input"])
    if found["type"] == "extra_forbidden":
        return f"unknown key{hint(str(found['loc'][0]), kind.model_fields)}"
    limits = found.get("ctx", {})
    words = {
        "int_type": f"expected a whole number, got {got}",
        "float_type": f"expected a number, got {got}",
        "string_type": f"expected a text, got {got}",
        "literal_error": f"{_literals(kind, limits)}, got {got}",
        "greater_than_equal": f"must be at least {limits.get('ge')}, got {got}",
        "greater_than": f"must be above {limits.get('gt', 0):g}, got {got}",
        "less_than_equal": f"must be at most {limits.get('le', 0):g}, got {got}",
        "less_than": f"must be below {limits.get('lt')}, got {got}",
    }
    return words.get(found["type"], f"{found['msg']}, got {got}")


def _literals(kind: type[BaseModel], limits: Mapping[str, Any]) -> str:
    if kind is Items:
        return "expected a whole number of at least 1 or 'rest'"
    return f"expected one of {str(limits.get('expected')).replace(' or ', ', ')}"


def _check_sampler(
    search: Search, template: Template | None, aggregate: Kind, problems: Problems
) -> None:
    known = SAMPLERS.names()
    if search.sampler not in known:
        rule = f"expected one of {', '.join(known)}, got {search.sampler!r}"
        problems.append(("search.sampler", f"{rule}{hint(search.sampler, known)}"))
    elif search.sampler == "cma-es" and aggregate == "apart":
        rule = "'cma-es' has one objective, `aggregate: apart` several; use 'auto' or 'tpe'"
        problems.append(("search.sampler", rule))
    elif search.sampler == "cma-es" and template and any(k.choices for k in template.knobs):
        problems.append(
            ("search.sampler", "'cma-es' cannot draw from choices; use 'auto', 'tpe' or 'random'")
        )


def _baselines(data: Any, folder: Path, problems: Problems) -> dict[str, Recipe]:
    """Read ``baselines: {name: recipe file}``; model references in the files start there too."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        problems.append(("baselines", f"expected names with recipe files, got {shown(data)}"))
        return {}
    found = {}
    for name, file in data.items():
        where = join("baselines", str(name))
        if name in OURS or str(name).startswith(OURS[-3:]):
            problems.append((where, "a name that the report uses itself; choose another"))
        try:
            found[str(name)] = recipe_reader.read(folder / str(file))
        except MergeError as error:
            problems.append((where, str(error)))
    return found


def _stored_baselines(stored: Mapping[str, Any], problems: Problems) -> dict[str, Recipe]:
    recipes = {
        name: recipe_reader.parse(data, f"baselines.{name}", problems)
        for name, data in stored.items()
    }
    return {name: recipe for name, recipe in recipes.items() if recipe is not None}


def _storage(url: str | None, folder: Path) -> str:
    url = url or "sqlite:///results/study.db"
    prefix = "sqlite:///"
    if url.startswith(prefix) and not url.startswith(f"{prefix}/"):
        return f"{prefix}{folder / url.removeprefix(prefix)}"
    return url

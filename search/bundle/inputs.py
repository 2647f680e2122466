"""The files that a study names, and the study's data as they name them inside a bundle."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluators.registry import Input
from merge_core.errors import MergeError, join
from merge_core.recipe.schema import Recipe
from search.spec.inside import leads_out
from search.spec.study_file import StudySpec
from search.storage.archive import DATABASE, MANIFEST, STUDY

ITEMS, RECIPES = "items.jsonl.gz", "recipes"
OURS = {STUDY, DATABASE, MANIFEST, ITEMS, RECIPES, "results", "summary.json", "report.html"}
OURS |= {"report.md", f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal"}
OUTSIDE = "files"  # the folder of what is outside of the study's own
ANOTHER = "another-study"  # in place of a prior's place; what was taken over is in the database
STORAGE = f"sqlite:///{DATABASE}"


@dataclass
class Inputs:
    """What goes along with a study.

    Args:
        data: The study file's data as the bundle has it.
        files: Name in the bundle -> the file.
        left: Files that are not in the bundle, and why.
        renamed: Name of a baseline -> as the bundle has it.
        outside: Path that leads out of the study's folder -> as the bundle has it.
    """

    data: dict[str, Any]
    files: dict[str, Path] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)


def inputs_of(spec: StudySpec, name: str, recipes: Iterable[Recipe], *, texts: bool) -> Inputs:
    """Return what goes along with a study.

    Args:
        spec: The study as it is stored.
        name: Of the study.
        recipes: Of its trials; the routers that were trained for them are nowhere else.
        texts: Whether files that items come from go along.

    Raises:
        MergeError: A file is not there, or is named by a path that a bundle cannot have.
    """
    found = Inputs({"name": name, **copy.deepcopy(dict(spec.data)), "storage": STORAGE})
    found.data["name"] = name
    _score(spec, found, texts)
    _routers(spec, found, recipes)
    _recipes(spec, found)
    _search(found)
    return found


def _score(spec: StudySpec, found: Inputs, texts: bool) -> None:
    for i, score in enumerate(spec.scores):
        entry = found.data["score"][i]
        named = {key: entry[key] for key in score.plugin.paths if entry.get(key) is not None}
        roots = {key: (spec.folder / value).resolve() for key, value in named.items()}
        places = {key: _place(value, found) for key, value in named.items()}
        for one in score.plugin.inputs(score.options, spec.folder):
            here = _inside(one, roots[one.key], places[one.key], spec.folder)
            if Path(here).parts[0] in OURS:
                raise MergeError(
                    f"{one.file}: is called as a file of the bundle's own is, {here}; give it "
                    "another name, or put it into a folder"
                )
            if one.data and not texts:
                found.left[here] = "holds texts of items, and these were not asked for"
            else:
                found.files[here] = one.file
        entry |= places


def _place(value: str, found: Inputs) -> str:
    """Return how a bundle names what the study file names so: the same, inside its folder."""
    plain = Path(value).as_posix()
    if not leads_out(plain) and not OURS & {*Path(plain).parts[:1]}:
        return plain
    number = len(found.outside) + 1
    return found.outside.setdefault(plain, f"{OUTSIDE}/{number}/{Path(plain).name}")


def _inside(one: Input, root: Path, place: str, folder: Path) -> str:
    file = one.file.resolve()
    if file == root:
        return place
    if file.is_relative_to(root):
        return (Path(place) / file.relative_to(root)).as_posix()
    if not place.startswith(f"{OUTSIDE}/") and file.is_relative_to(folder.resolve()):
        return file.relative_to(folder.resolve()).as_posix()
    raise MergeError(
        f"{one.file}: is needed by what {one.key} names, and outside of it; a bundle has files in "
        "or below that folder only, so move it there"
    )


def _routers(spec: StudySpec, found: Inputs, recipes: Iterable[Recipe]) -> None:
    for gates in {recipe.moe.gates for recipe in recipes if recipe.moe} - {None}:
        assert gates is not None
        file, name = spec.folder / gates, Path(gates).as_posix()
        if leads_out(name) or not file.is_file():
            found.left[Path(name).name] = "routers of a trial, not inside the study's folder"
        else:
            found.files[name] = file


def _recipes(spec: StudySpec, found: Inputs) -> None:
    """Name the files of the baselines' recipes, which are written from what is stored."""
    if found.data.get("baselines"):
        found.data["baselines"] = {
            name: f"{RECIPES}/baseline-{i}.yaml"
            for i, name in enumerate(found.data["baselines"], start=1)
        }
    search = found.data.get("search")
    if spec.search.start is not None and isinstance(search, dict):
        before, place = spec.start_name, f"{RECIPES}/start.yaml"
        search["start"] = place
        found.renamed[before] = f"start:{place}"


def recipe_files(spec: StudySpec, found: Inputs) -> dict[str, Recipe]:
    """Return the recipes that the study file of a bundle names, by the names of their files."""
    made = {
        file: spec.baselines[name] for name, file in (found.data.get("baselines") or {}).items()
    }
    if spec.search.start is not None:
        made[found.data["search"]["start"]] = spec.search.start
    return made


def _search(found: Inputs) -> None:
    """Leave out what is only true of this machine, and changes no trial of a study that began."""
    search, engine = found.data.get("search"), found.data.get("engine")
    if isinstance(engine, dict):
        engine.pop("cache", None)
    if isinstance(search, dict) and isinstance(search.get("prior"), str):
        prior = search["prior"]
        name = Path(prior).name
        search["prior"] = ANOTHER if "://" in prior or leads_out(name) or not name else name


def absolute_paths(data: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the key path and the text of all that is an absolute path on this machine."""
    if isinstance(data, str) and data.startswith("/") and len(Path(data).parts) > 2:
        if Path(data).exists():
            yield path, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from absolute_paths(value, join(path, key))
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from absolute_paths(value, join(path, i))

"""What of this machine's disk a worker of a study reads, and how it is opened where that is not.

That is: the files that the study file names (tasks, questions, recipes), and the local models that
its recipes name. Models of the hub are fetched by each machine itself.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, get_args

from merge_core.errors import OutputError
from merge_core.parents import gguf_file
from merge_core.parents.companions import OWN, code_files, companions
from merge_core.parents.locate import PICKLED, local_file, local_model
from merge_core.recipe.model_reference import Reference, parse
from merge_core.recipe.yaml_document import Document
from merge_core.validation import Words
from search.spec import study_file
from search.spec.study_file import StudySpec
from search.workers.opening import Opening
from search.workers.parcels import Parcel

OF_MODELS = ("*.safetensors", "*.index.json", *OWN)
RESULTS = "results"
Folders: TypeAlias = tuple[tuple[str, int], ...]  # paths and inodes


@dataclass(frozen=True)
class Cargo:
    """The files that workers of a study read.

    Args:
        study: Those that the study file names, by their absolute paths without the first slash.
        models: Path, as references have it, to the files of a local model or adapter.
        references: All that the study's recipes may name.
        folders: The study's folder and that of its results, with their inodes: whoever has the
            same shares the disk.
    """

    study: Parcel
    models: Mapping[str, Parcel]
    references: tuple[str, ...]
    folders: Folders

    @classmethod
    def of(cls, opening: Opening) -> Cargo:
        """Collect what is needed of this machine.

        Raises:
            OutputError: A file cannot be read.
        """
        folder = Path(opening.folder)
        stored = None if opening.about is None else opening.about["baselines"]
        spec = study_file.of_document(Document("study", opening.study, {}), folder, stored)
        roots = (folder, Path(opening.directory or Path.cwd()))
        references = _references(spec)
        paths = [path for reference in references for path in _paths(reference)]
        found = {path: local_model(path, roots) or local_file(path, roots) for path in paths}
        local = {path: place for path, place in found.items() if place is not None}
        named = _of_study(spec, opening.study, set(local.values()))
        try:
            return cls(
                Parcel.of("the study's files", {_mirrored(file): file for file in named}),
                {path: Parcel.of(f"model {path!r}", _of_model(x)) for path, x in local.items()},
                references,
                tuple((str(x), x.stat().st_ino) for x in (folder, folder / RESULTS) if x.exists()),
            )
        except OSError as error:
            raise OutputError(f"{error.filename}: cannot be read: {error.strerror}") from error

    @property
    def parcels(self) -> list[Parcel]:
        """All of it."""
        return [self.study, *self.models.values()]


def opening_at(opening: Opening, cargo: Cargo, places: Mapping[Parcel, Path]) -> Opening:
    """Return how a study is opened on a machine where some of its files lie elsewhere.

    Args:
        opening: How it is opened on the coordinator's machine.
        cargo: Its files.
        places: Parcel -> the folder that holds it, where that is not where the coordinator has it.
    """
    models = {
        path: str(_inside(places[parcel], path, parcel))
        for path, parcel in cargo.models.items()
        if parcel in places
    }
    elsewhere = {x: _moved(x, models) for x in cargo.references if models.keys() & {*_paths(x)}}
    if cargo.study not in places:
        return replace(opening, places=elsewhere)
    root, folder = places[cargo.study], Path(opening.folder)
    files = {Path(file.path) for file in cargo.study.files}
    study = dict(opening.study)
    for section in ("score", "baselines", "search"):
        if section in study:
            study[section] = _relocated(study[section], folder, root, files)
    there = str(root / _mirrored(folder))
    return replace(opening, study=study, folder=there, places=elsewhere, directory="")


def _references(spec: StudySpec) -> tuple[str, ...]:
    """Return every reference of the study's recipes once, a file of routers included."""
    recipes = [name for recipe in spec.recipes.values() for name in recipe.references()]
    gates = (spec.template.data.get("moe") or {}).get("gates")
    return tuple(
        dict.fromkeys([*spec.template.references(), *recipes, *([gates] if gates else [])])
    )


def _paths(reference: str) -> list[str]:
    """Return what of a reference may be a folder or a file: all of it, or else its parts."""
    parts = parse(reference)
    return [reference, *(path for path in (parts.path, parts.lora) if path is not None)]


def _moved(reference: str, models: Mapping[str, str]) -> str:
    """Return a reference with other paths; a text that is a folder as a whole is that folder."""
    if reference in models:
        return str(Reference(models[reference]))
    parts = parse(reference)
    lora = None if parts.lora is None else models.get(parts.lora, parts.lora)
    path = models.get(parts.path, parts.path)
    return str(replace(parts, path=path, lora=lora))


def _inside(place: Path, path: str, parcel: Parcel) -> Path:
    """Return what a path leads to in the folder of its parcel: that, or a file of tensors in it."""
    names = [file.name for file in parcel.files]
    return place / names[0] if names == [Path(path).name] else place


def _of_model(place: Path) -> dict[str, Path]:
    """Return name -> file of all that is read of a model's folder, or the file it is."""
    if place.suffix == gguf_file.SUFFIX and place.is_file():
        return {x.relative_to(place.parent).as_posix(): x for x in gguf_file.sources(place)}
    if place.is_file():
        return {place.name: place}
    safe = any(place.glob("*.safetensors"))
    patterns = OF_MODELS if safe else (*OF_MODELS, *PICKLED)
    files = {file for pattern in patterns for file in place.glob(pattern)}
    with warnings.catch_warnings():  # they were told when the study was opened
        warnings.simplefilter("ignore")
        files.update((*companions(place), *code_files(place)))
    return {file.relative_to(place).as_posix(): file for file in files}


def _of_study(spec: StudySpec, study: Mapping[str, Any], models: set[Path]) -> set[Path]:
    """Return the files that a study file names, and those in folders that it names."""
    folder = spec.folder
    named = [study.get("score"), study.get("baselines"), (study.get("search") or {}).get("start")]
    places = [_place(text, folder) for text in _strings(named)]
    inside = [x for x in places if not folder.is_relative_to(x)]  # "." may mean something else
    for score in spec.scores:
        fields = type(score.options).model_fields.items()
        given = [getattr(score.options, name) for name, field in fields if _is_folder(field)]
        inside += [_place(text, folder) for text in given if text is not None]
    left_out = {folder / RESULTS, *models}
    return {file for place in inside if place.exists() for file in _files(place, left_out)}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _strings(one)


def _is_folder(field: Any) -> bool:
    """Return whether an option's field is declared as a folder, or a folder or nothing."""
    kinds = [field.annotation, *get_args(field.annotation)]
    marks = [*field.metadata, *(mark for kind in kinds for mark in get_args(kind)[1:])]
    return any(isinstance(mark, Words) and mark.text == "a folder" for mark in marks)


def _place(text: str, folder: Path) -> Path:
    """Return what a text would name as a path; where it can name none, a path without a file."""
    try:
        place = Path(os.path.abspath(folder / Path(text).expanduser()))
        place.exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, ~ of nobody
        return folder / RESULTS / "nothing"
    return place


def _files(place: Path, left_out: set[Path]) -> Iterator[Path]:
    """Yield a file, or the files below a folder that are neither hidden nor left out."""
    if place.is_file():
        yield place
    for root, folders, files in os.walk(place):
        here = Path(root)
        folders[:] = [x for x in folders if _goes(here / x, left_out)]
        yield from (here / x for x in files if _goes(here / x, left_out) and (here / x).is_file())


def _goes(place: Path, left_out: set[Path]) -> bool:
    hidden = place.name.startswith(".") or place.name == "__pycache__"
    return not hidden and place not in left_out and place.resolve() not in left_out


def _mirrored(place: Path) -> str:
    return place.relative_to(place.anchor).as_posix()


def _relocated(value: Any, folder: Path, root: Path, files: set[Path]) -> Any:
    """Return plain data in which absolute paths that lead to these files lead below ``root``."""
    if isinstance(value, str) and value.startswith(("/", "~")):
        place = _place(value, folder)
        return (
            str(root / _mirrored(place)) if any(place in (f, *f.parents) for f in files) else value
        )
    if isinstance(value, Mapping):
        return {key: _relocated(one, folder, root, files) for key, one in value.items()}
    if isinstance(value, list):
        return [_relocated(one, folder, root, files) for one in value]
    return value

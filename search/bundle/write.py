"""A stored study -> a bundle: one zip file with all but the models' weights.

The same study gives the same bytes, from the same versions of mergetune, Optuna, SQLite and zlib.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml

from merge_core.atomic_write import make_whole
from merge_core.errors import (
    MergeError,
    OutputError,
    OutputExistsError,
    ParameterError,
    Problems,
    StorageError,
)
from merge_core.json_text import json_text
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe
from search.bundle.inputs import ITEMS, RECIPES, Inputs, absolute_paths, inputs_of, recipe_files
from search.bundle.portable import Portable, renamed
from search.bundle.texts import Texts, texts_of
from search.report import pages
from search.report.files import SUMMARY
from search.report.page.found import Found
from search.spec.study_file import StudySpec
from search.storage import snapshot
from search.storage.archive import DATABASE, ENDING, FORMAT, MANIFEST, STUDY, check, holds_manifest
from search.storage.locate import open_study
from search.storage.open import open_record
from search.storage.study_record import Record

LONG_AGO = (1980, 1, 1, 0, 0, 0)  # of every file in the zip, the first that it can say
HEAD = "# The study file of a bundle that `mergetune bundle` wrote, as the study began with it.\n"


@dataclass(frozen=True)
class Bundled:
    """What was written.

    Args:
        out: The bundle.
        manifest: What it says of itself.
    """

    out: Path
    manifest: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"out": str(self.out), "bytes": self.out.stat().st_size, **self.manifest}


def write(
    study: str,
    out: Path,
    *,
    overwrite: bool = False,
    texts: bool = True,
    name: str | None = None,
) -> Bundled:
    """Write a study's bundle.

    Args:
        study: A study file, its folder, a bundle, or the URL of its storage; it may be running.
        out: The file to make, ``....zip``.
        overwrite: Replace a bundle that is there.
        texts: Whether texts of items, and the files that they come from, go along.
        name: Of the study, where its storage holds several.

    Raises:
        MergeError: The study has not begun, or what it needs cannot be read.
        OutputExistsError: Something is there.
        OutputError: The bundle cannot be written.
    """
    _check_place(out, overwrite=overwrite)
    spec, record = open_study(study, name)
    contents = snapshot.Contents.of(record)
    items = texts_of(record, spec, wanted=texts)
    recipes = _recipes_of(contents)
    inputs = inputs_of(spec, record.name, recipes, texts=texts)
    change = _change(spec, record, recipes, inputs, items)
    inputs.data = change.plain(inputs.data)
    found = next(absolute_paths(inputs.data), None)
    if found is not None:
        raise MergeError(
            f"{found[0]}: names {found[1]}, which is on this machine only; write it relative to "
            "the study file"
        )
    portable = change.with_study(inputs.data)
    with _built(out) as (folder, beside):
        snapshot.write(contents, folder / DATABASE, portable)
        _write_inputs(folder, spec, inputs, portable)
        _write_items(folder / ITEMS, items.rows)
        _write_results(folder, beside / DATABASE)
        manifest = _manifest(folder, record, portable, inputs, items)
        (folder / MANIFEST).write_text(json_text(manifest) + "\n", encoding="utf-8")
        make_whole(out, lambda part: _zip(folder, part))
    return Bundled(out, manifest)


@contextmanager
def _built(out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield an empty folder for what goes in, and the one above it; both go."""
    try:
        with tempfile.TemporaryDirectory(prefix="mergetune-bundle-") as temporary:
            folder = Path(temporary) / "bundle"
            folder.mkdir()
            yield folder, Path(temporary)
    except OSError as error:
        if isinstance(error, MergeError):
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise OutputError(f"{out}: cannot be written: {error.strerror}{where}") from error


def _check_place(out: Path, *, overwrite: bool) -> None:
    if out.suffix != ENDING:
        raise ParameterError(f"OUT: expected a file that ends in {ENDING}, got {str(out)!r}")
    if not out.exists():
        return
    if not overwrite:
        raise OutputExistsError(f"{out}: exists; choose another place or pass --overwrite")
    if not holds_manifest(out):
        raise OutputExistsError(f"{out}: is not replaced, since mergetune did not write it")


def _recipes_of(contents: snapshot.Contents) -> list[Recipe]:
    """Return the recipes of all trials, also of those that were settled a moment ago."""
    problems: Problems = []
    found = [
        recipe_reader.parse(trial.user_attrs.get("recipe"), f"trial {trial.number}", problems)
        for trial in contents.trials
    ]
    if problems:
        raise StorageError("; ".join(f"{path}: {rule}" for path, rule in problems))
    return [recipe for recipe in found if recipe is not None]


def _change(
    spec: StudySpec, record: Record, recipes: Sequence[Recipe], inputs: Inputs, items: Texts
) -> Portable:
    """Return what changes names; the study's data are still those of this machine."""
    every = [*spec.recipes.values(), *recipes]
    used = {name for recipe in every for name in recipe.references()}
    about = record.about or {}
    names = renamed(sorted({*spec.template.references(), *about["parents"], *used}), spec.folder)
    digests = {}
    if names:
        whole = {name: names.get(name, name) for name in used}
        for recipe in recipes:
            mine = {name: whole[name] for name in recipe.references()}
            digests[recipe.digest()] = recipe.with_references(mine).digest()
    return Portable(inputs.data, names, {**inputs.renamed, **digests}, items.silent)


def _write_inputs(folder: Path, spec: StudySpec, inputs: Inputs, change: Portable) -> None:
    text = yaml.safe_dump(inputs.data, sort_keys=False, allow_unicode=True, width=100)
    (folder / STUDY).write_text(HEAD + text, encoding="utf-8")
    for name, file in inputs.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    _write_recipes(folder, recipe_files(spec, inputs), change)


def _write_recipes(folder: Path, recipes: Mapping[str, Recipe], change: Portable) -> None:
    for name, recipe in recipes.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(change.plain(recipe.plain()), sort_keys=False, allow_unicode=True)
        target.write_text(text, encoding="utf-8")


def _write_items(file: Path, rows: Iterable[Mapping[str, str]]) -> None:
    made = BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=made, mtime=0) as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=True).encode() + b"\n")
    file.write_bytes(made.getvalue())


def _write_results(folder: Path, database: Path) -> None:
    """Write what a reader wants to see, from a second copy of the database: the first stays as is.

    Args:
        folder: Of the bundle.
        database: Where the second copy may be.
    """
    shutil.copyfile(folder / DATABASE, database)
    record = open_record(f"sqlite:///{database}")
    pages.write(folder, Found.of(record, f"{record.name}{ENDING}"))
    summary = record.summary
    if summary is None:
        return
    (folder / SUMMARY).write_text(json_text(summary) + "\n", encoding="utf-8")
    (folder / RECIPES).mkdir(exist_ok=True)
    winner = summary["winner"]["trial"]
    numbers = {x["trial"] for x in summary.get("finalists", ())} | {winner}
    for number in sorted(numbers):
        for file in (f"trial-{number}.yaml", *(["best.yaml"] if number == winner else [])):
            head = (
                f"# Trial {number} of the mergetune study {record.name!r}.\n"
                "# Local models are named as seen from the folder that the bundle was made for.\n"
            )
            text = head + record.trial(number).recipe.to_yaml()
            (folder / RECIPES / file).write_text(text, encoding="utf-8")


def _manifest(
    folder: Path, record: Record, change: Portable, inputs: Inputs, items: Texts
) -> dict[str, Any]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    parents = (record.about or {})["parents"]
    return {
        "format": FORMAT,
        "mergetune": version("mergetune"),
        "study": record.name,
        "parents": {change.name(name): {"sha256": digest} for name, digest in parents.items()},
        "texts": items.told,
        "left_out": inputs.left,
        "files": {
            file.relative_to(folder).as_posix(): {
                "bytes": file.stat().st_size,
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            }
            for file in files
        },
    }


def _zip(folder: Path, out: Path) -> None:
    """Write the bundle; what nobody could open is refused by whoever writes it."""
    with zipfile.ZipFile(out, "w") as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), LONG_AGO)
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3  # Unix
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, file.read_bytes(), compresslevel=9)
    check(out)

"""STUDY on the command line: a study file, its folder, or a storage URL -> what was stored."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from merge_core.errors import MergeError, StorageError, UnknownNameError
from merge_core.recipe.yaml_document import Document
from search.spec import study_file
from search.spec.inside import broken_by
from search.spec.storage_url import filled, in_folder, variables
from search.spec.study_file import StudySpec
from search.spec.study_name import MARK, split
from search.storage import archive
from search.storage.open import open_record, plain_url
from search.storage.study_record import Record
from search.trial.trial import Trial

SAMPLE = "sample:"  # before the number of trials that are drawn


def open_study(study: str, name: str | None = None) -> tuple[StudySpec, Record]:
    """Open a study that has begun, for reading.

    The database alone says what the study is; of a study file only name, storage and place count.
    Its place does: models, tasks and questions are looked for beside the file that is named, and
    only where none is, where it was when the study ran.

    Args:
        study: A study file, its folder, a bundle (.zip), or an Optuna storage URL, in which
            ``${NAME}`` stands for an environment variable; ``#name`` at its end is a name.
        name: Which one, where the storage holds several; None: the study file's, or the only one.

    Raises:
        MergeError: There is no such study, or it has not begun.
    """
    study, name = split(study, name)
    if archive.is_bundle(study):
        return _of_bundle(Path(study), name)
    if "://" in study and not Path(study).exists():
        record = open_record(plain_url(filled, study), name)
    else:
        spec = study_file.read(Path(study)).called(name)
        record = open_record(
            spec.storage, spec.name, unnamed=spec.unnamed, variables=spec.variables
        )
        return of_record(record, spec)
    return of_record(record)


def open_from(study: str, folder: Path) -> tuple[StudySpec, Record]:
    """Open a study that has begun, for reading, as a study file in ``folder`` names it.

    Raises:
        MergeError: There is no such study, or it has not begun.
    """
    if "://" not in study:
        return open_study(str(folder / study))
    storage, name = split(study)
    url = in_folder(plain_url(filled, storage), folder)
    return of_record(open_record(url, name, variables=variables(storage)))


def in_place(study: str, tell: Callable[[str], None]) -> str:
    """Return a STUDY whose files are on this disk: a bundle is unpacked beside itself.

    Args:
        study: As for ``open_study``.
        tell: Is told where a bundle is unpacked.

    Raises:
        MergeError: The bundle is damaged, names files outside, or something else is where it goes.
    """
    here, name = split(study)
    if not archive.is_bundle(here):
        return study
    bundle = Path(here)
    if not archive.beside(bundle).exists():
        _of_bundle(bundle, name)  # refused before anything is written beside it
    folder, new = archive.place(bundle)
    tell(f"{bundle}: {'is unpacked' if new else 'was unpacked before, and goes on'} in {folder}")
    return str(folder) if name is None else f"{folder}{MARK}{name}"


def _of_bundle(bundle: Path, name: str | None = None) -> tuple[StudySpec, Record]:
    record, file = archive.opened(bundle, name)
    about = record.about
    if about is not None:
        if about["folder"] != "." or file != about["study"]:
            rule: str | None = "its study file is not that of its database"
        elif file.get("storage") != f"sqlite:///{archive.DATABASE}":
            rule = f"its storage is not its {archive.DATABASE}"
        else:
            rule = broken_by(file)
        if rule is not None:
            raise StorageError(f"{bundle}: is no bundle, or is damaged: {rule}")
    return of_record(record)


def of_record(record: Record, named: StudySpec | None = None) -> tuple[StudySpec, Record]:
    """Return a study as its record says, and the record.

    Args:
        record: The study's.
        named: The study file that led to it, if one did: it says where the study lies.

    Raises:
        MergeError: It has not begun.
    """
    about = record.about
    if about is None:
        raise MergeError(f"study {record.name!r} in {record.url} has not begun: run it first")
    document = Document(f"study {record.name!r} in {record.url}", about["study"], {})
    folder = record.folder() if named is None else named.folder
    stored = study_file.of_document(document, folder, about["baselines"])
    place = {} if named is None else {"results": named.results}
    return stored.model_copy(update=place), record


def winner(record: Record) -> tuple[Trial, dict[str, Any]]:
    """Return a finished study's winning trial and its summary.

    Raises:
        MergeError: The study is not finished, or what is stored of its end is damaged.
    """
    summary = record.summary
    if summary is None:
        raise MergeError(f"study {record.name!r} is not finished: run it first")
    number = (summary.get("winner") or {}).get("trial")
    if not isinstance(number, int):
        raise StorageError(
            f"study {record.name!r} in {record.url} is damaged: its summary names no winner; run "
            "it again, which writes the summary anew"
        )
    return record.trial(number), summary


def chosen(record: Record, which: str, *, several: bool = True) -> list[Trial]:
    """Return the trials that ``--trial`` names: a number, ``best``, ``all``, or ``sample:K``.

    A sample is drawn by the study's seed, so it is the same wherever it is drawn, and a larger one
    has the smaller one in it. The winner, or so far the best trial, is always in it.

    Raises:
        UnknownNameError: It names no trial.
        MergeError: ``best`` of a study that is not finished.
    """
    if which == "all" and several:
        return list(record.trials)
    if which == "best":
        return [winner(record)[0]]
    if several and which.startswith(SAMPLE):
        return _sample(record, which.removeprefix(SAMPLE))
    if not which.isdecimal():
        words = "a number, best, all or sample:K" if several else "a number or best"
        raise UnknownNameError(f"--trial: expected {words}, got {which!r}")
    return [record.trial(int(which))]


def _sample(record: Record, size: str) -> list[Trial]:
    if not size.isdecimal() or int(size) < 1:
        raise UnknownNameError(f"--trial: expected sample:K with K of at least 1, got {size!r}")
    about = record.about or {"study": {}}
    seed = (about["study"].get("search") or {}).get("seed", 0)
    done = [trial for trial in record.trials if trial.value is not None]
    best = max(done, key=lambda trial: trial.value or 0.0, default=None)
    first = best if record.summary is None else winner(record)[0]

    def lot(trial: Trial) -> bytes:
        return blake2b(f"{seed}:{trial.number}".encode()).digest()

    drawn = sorted(record.trials, key=lambda trial: (trial is not first, lot(trial)))
    return sorted(drawn[: int(size)], key=lambda trial: trial.number)

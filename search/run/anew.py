"""Where a study starts anew: when the user says so, or when nothing of it would be lost by that.

What is stored is put aside under another name of the same storage (``storage/aside``), and told.
"""

from __future__ import annotations

from collections.abc import Callable

from search.run.resume import opened
from search.spec.changes import ChangedStudyError
from search.spec.study_file import StudySpec
from search.storage.aside import put_aside
from search.storage.study_record import Record
from search.trial.progress import Progress


def start_over(spec: StudySpec, progress: Progress, stop: Callable[[], bool]) -> None:
    """Put aside what is stored of a study, as the user wants it.

    Args:
        spec: The study.
        progress: Is told what becomes of it.
        stop: Asked, while its storage is away, whether to wait no more.

    Raises:
        MergeError: Another process writes it.
        StorageError: It cannot be read or written.
    """
    record = opened(spec, progress.notice, stop)
    with record.writing():
        if record.trials or record.about is not None:
            _put_aside(record, "--fresh", progress)


def start_anew(
    spec: StudySpec, changed: ChangedStudyError, progress: Progress, stop: Callable[[], bool]
) -> None:
    """Put aside what is stored of a study that is another one by now and has no scores.

    Args:
        spec: The study as it is now.
        changed: Why the run cannot go on with what is stored.
        progress: Is told so, and what becomes of it.
        stop: As above.

    Raises:
        ChangedStudyError: It has scores: a trial that did not fail.
        MergeError: Another process writes it.
    """
    record = opened(spec, progress.notice, stop)
    with record.writing():
        if any(trial.state != "failed" for trial in record.trials):
            raise changed
        _put_aside(record, f"it has no completed trial, and {changed}", progress)


def _put_aside(record: Record, why: str, progress: Progress) -> None:
    count, finished = len(record.trials), record.summary is not None
    name = put_aside(record)
    kept = "there was no trial yet" if name is None else _kept(count, name)
    left = "; its results stay in their folder until new ones are there" if finished else ""
    progress.notice(f"study {record.name!r} starts anew ({why}): {kept}{left}")


def _kept(count: int, name: str) -> str:
    return f"its {count} trials are kept as study {name!r} (`mergetune trials STUDY#{name}`)"

"""One study, start to end: search, select, report, results."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from merge_core.errors import MergeError
from search.report import files as results
from search.report.select import choose
from search.report.summary import Report, summarize
from search.run.loop import search
from search.run.resume import open_for
from search.spec import study_file
from search.spec.study_file import StudySpec
from search.storage.study_record import Record
from search.trial.progress import Progress, StopRequested
from search.trial.worker import InterruptedStudyError, Worker

TRACEBACK = "traceback.txt"  # in the results folder: of the latest run that broke


def run(path: Path, progress: Progress, stop: Callable[[], bool]) -> Report | None:
    """Start or resume a study and write its results.

    Args:
        path: The study file or its folder.
        progress: Is told how it goes.
        stop: Asked between candidates whether to end.

    Returns:
        What it found, or None if ``stop`` ended the run.

    Raises:
        MergeError: The study cannot be run; what is settled stays stored.
    """
    spec = study_file.read(path)
    spec.results.mkdir(parents=True, exist_ok=True)
    lock = FileLock(spec.results / ".writer.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise MergeError(f"{spec.results}: another run of this study is writing there") from error
    with lock, _traceback_kept(spec.results):
        return _run(spec, progress, stop)


def _run(spec: StudySpec, progress: Progress, stop: Callable[[], bool]) -> Report | None:
    progress.stage("opening models and tasks")
    record = open_for(spec)
    with record.writing():
        return _search_and_report(spec, record, progress, stop)


def _search_and_report(
    spec: StudySpec, record: Record, progress: Progress, stop: Callable[[], bool]
) -> Report | None:
    worker = Worker(spec.data, spec.folder, record.about)
    builder, tasks = worker.builder, worker.tasks
    progress.stage(f"candidates are merged by {builder.kernels} kernels")
    progress.notice(f"parents: {builder.placement.where}: {builder.placement.reason}")
    for notice in (*spec.notices.lines(), *tasks.notices):
        progress.notice(notice)
    if not search(spec, record, worker, progress, stop):
        return None
    progress.stage(f"computed once for all candidates: {builder.once}")
    try:
        chosen = choose(record, worker, progress, stop)
    except StopRequested:
        return None
    report = summarize(record, spec, tasks, chosen)
    progress.stage("writing results")
    record.finish(report.to_json())
    results.write(spec.results, builder, record.trial(chosen.winner), report)
    return report


@contextmanager
def _traceback_kept(folder: Path) -> Iterator[None]:
    """Make one line of what nobody foresaw; where it broke is kept in a file.

    Raises:
        MergeError: For every error, and as it is where it names all there is to know.
    """
    try:
        yield
    except InterruptedStudyError as error:
        raise _told(folder, str(error), error.traceback) from error
    except MergeError:
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise _told(folder, f"{type(error).__name__}: {first}", traceback.format_exc()) from error


def _told(folder: Path, line: str, trace: str) -> MergeError:
    file = folder / TRACEBACK
    try:
        file.write_text(trace, encoding="utf-8")
    except OSError as error:  # such as a full disk, which may be what broke
        return MergeError(f"{line} (its traceback could not be kept: {error.strerror})")
    return MergeError(f"{line} (traceback: {file})")

"""One study, start to end: search, select, report, results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from merge_core.atomic_write import make_folder
from merge_core.errors import MergeError, OutputError
from search.callbacks.protocol import Callback
from search.callbacks.registry import made
from search.callbacks.told import telling
from search.report import files as results
from search.report import looks, pages
from search.report.cards import card_result
from search.report.measure import REPORT
from search.report.page.found import Found
from search.report.samples import keep_samples
from search.report.select import choose
from search.report.so_far import SoFar
from search.report.summarize import summarize
from search.report.summary import Report
from search.run.anew import start_anew, start_over
from search.run.loop import search
from search.run.resume import carried, open_for
from search.run.shown import few
from search.run.unforeseen import traceback_kept
from search.run.unlike_parents import unlike_parents
from search.spec import study_file
from search.spec.changes import ChangedStudyError
from search.spec.storage_url import secrets
from search.spec.study_file import StudySpec
from search.spec.study_name import split
from search.storage.study_record import Record
from search.trial.budget import NO_CHANGE, Change
from search.trial.progress import Progress, StopRequested
from search.trial.worker import Bench
from search.workers.hire import ALONE, Staff, hired


def run(
    path: Path,
    progress: Progress,
    stop: Callable[[], bool],
    change: Change = NO_CHANGE,
    others: Sequence[str] = (),
    staff: Staff = ALONE,
    *,
    accept: bool = False,
    force: bool = False,
    name: str | None = None,
    fresh: bool = False,
    callbacks: Sequence[str] = (),
) -> Report | None:
    """Start or resume a study and write its results.

    Args:
        path: The study file or its folder; ``#name`` at its end is a name.
        progress: Is told how it goes.
        stop: Asked between candidates whether to end.
        change: What this run has instead of the study file's budget.
        others: Other studies (files, folders, URLs) whose winners may have been measured on the
            same report items: each is a look at them.
        staff: Who builds and scores the candidates.
        accept: Whether the environment (libraries, device, ...) may be another one than that of
            earlier runs.
        force: Whether to search where all baselines score the same.
        name: Of the study, instead of the study file's.
        fresh: Whether to start over; what is stored is kept as another study, see ``anew``.
        callbacks: Names of those that are told how the run goes, too.

    Returns:
        What it found, or None if ``stop`` ended the run.

    Raises:
        MergeError: The study cannot be run; what is settled stays stored.
    """
    file, name = split(str(path), name)
    spec, listeners = study_file.read(Path(file)).called(name), made(callbacks)
    with _held(spec.results), traceback_kept(spec.results, secrets(spec.storage)):
        if fresh:
            start_over(spec, progress, stop)
        work = partial(_run, spec, progress, stop, change, others, staff, accept, force, listeners)
        try:
            return work()
        except ChangedStudyError as changed:
            start_anew(spec, changed, progress, stop)
        return work()


def _held(folder: Path) -> AbstractContextManager[object]:
    """Return a lock that keeps other runs of this machine from a folder of results."""
    make_folder(folder)
    lock = FileLock(folder / ".writer.lock")
    try:
        found: AbstractContextManager[object] = lock.acquire(timeout=0)
    except Timeout as error:
        raise MergeError(f"{folder}: another run of this study is writing there") from error
    except OSError as error:
        raise OutputError(f"{lock.lock_file}: cannot be written: {error.strerror}") from error
    return found


def _run(
    spec: StudySpec,
    progress: Progress,
    stop: Callable[[], bool],
    change: Change,
    others: Sequence[str],
    staff: Staff,
    accept: bool,
    force: bool,
    callbacks: Mapping[str, Callback],
) -> Report | None:
    progress.phase("opening")
    record = open_for(spec, progress.notice, stop)
    results.check_owner(spec.results, record.name)
    with (
        record.writing(),
        hired(staff, spec, lambda: carried(spec, record), progress.notice) as bench,
        telling(progress, callbacks, spec, record) as told,
    ):
        looks.note_others(record, spec, bench.tasks, others, progress)
        report = _search_and_report(spec, record, bench, told, stop, change, accept, force)
        told.summary = None if report is None else report.to_json()
        return report


def _search_and_report(
    spec: StudySpec,
    record: Record,
    bench: Bench,
    progress: Progress,
    stop: Callable[[], bool],
    change: Change,
    accept: bool,
    force: bool,
) -> Report | None:
    builder, tasks = bench.builder, bench.tasks
    told = bench.told()
    progress.stage(f"candidates are merged by {told['kernels']} kernels")
    progress.notice(f"parents: {told['parents']}")
    for notice in (*spec.notices.lines(), *tasks.notices, *_warnings(spec, bench)):
        progress.notice(notice)
    end = search(spec, record, bench, progress, stop, change, accept=accept, force=force)
    if end is None:
        _stopped(record, progress)
        return None
    progress.stage(f"computed once for all candidates: {bench.told()['once']}")
    try:
        chosen = choose(record, bench, progress, stop)
        keep_samples(record, bench, chosen, progress, stop)
    except StopRequested:
        _stopped(record, progress)
        return None
    _keep_use(record, bench, progress)
    report = summarize(record, spec, tasks, chosen, end)
    progress.phase("writing")
    record.keep_looks(looks.looks_of(record, chosen.winner, len(tasks.pools[REPORT])))
    record.finish(report.to_json())
    winner = record.trial(chosen.winner)
    pages.write(spec.results, Found.of(record, spec.folder.name))
    results.write(spec.results, builder, winner, report, card_result(record, winner))
    return report


def _warnings(spec: StudySpec, bench: Bench) -> list[str]:
    """Return what of a study is allowed but unwise, as ``check`` says it, too."""
    parents = bench.builder.parents
    folders = {name: parents[name].folder for name in spec.template.references()}
    main = spec.template.base_or_first()
    found = [few(bench.tasks), *unlike_parents(folders, main, bench.builder.tokenizer)]
    return [f"warning: {line}" for line in found if line]


def _stopped(record: Record, progress: Progress) -> None:
    """Say what is best so far of a study that is stopped before its report."""
    for sentence in () if record.summary else SoFar.of(record).verdict():
        progress.notice(sentence)


def _keep_use(record: Record, bench: Bench, progress: Progress) -> None:
    """Store, and say, how much of the time several workers were at work."""
    if bench.utilisation is None:
        return
    busy = round(bench.utilisation, 3)
    progress.notice(f"{bench.count} workers were at work {busy:.0%} of the time")
    if record.runs:
        record.keep_run({**record.runs[-1], "busy": busy}, again=True)

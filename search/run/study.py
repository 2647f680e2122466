"""One study, start to end: search, select, report, results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from merge_core.errors import MergeError
from search.report import files as results
from search.report import select as selection
from search.report.select import REPORT
from search.run.loop import Progress, open_for, search
from search.spec import study_file
from search.trial.workbench import Workbench


def run(path: Path, progress: Progress, stop: Callable[[], bool]) -> dict[str, Any] | None:
    """Start or resume a study and write its results.

    Args:
        path: The study file or its folder.
        progress: Is told how it goes.
        stop: Asked between trials whether to end.

    Returns:
        What ``summary.json`` holds, or None if ``stop`` ended the run.

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
    with lock:
        progress.stage("opening models and tasks")
        record = open_for(spec)
        bench = Workbench(spec, record.about)
        progress.stage(f"candidates are merged by {bench.kernels} kernels")
        progress.notice(f"parents: {bench.placement.where}: {bench.placement.reason}")
        for notice in bench.notices:
            progress.notice(notice)
        if not search(spec, record, bench, progress, stop):
            return None
        progress.stage(f"computed once for all candidates: {bench.once}")
        chosen = selection.select(record, bench, progress)
        selection.measure(record, bench, REPORT, list(chosen.named.values()), progress)
        summary = selection.summary(record, bench, chosen)
        progress.stage("writing results")
        record.finish(summary)
        results.write(bench, chosen.winner, summary)
    return summary

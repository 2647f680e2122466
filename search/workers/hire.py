"""Who does a study's jobs: this process alone, or workers that the command line asks for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from search.spec.study_file import StudySpec
from search.trial.worker import Bench, Worker
from search.workers.crew import Crew
from search.workers.devices import cpus_here, gpus_here, gpus_per_worker, shares
from search.workers.opening import Opening
from search.workers.permissions import Permissions
from search.workers.processes import Processes


@dataclass(frozen=True)
class Staff:
    """What a run is asked for.

    Args:
        workers: Processes of this machine, at least 1; None, 1: the coordinator does all itself.
    """

    workers: int | None = None


ALONE = Staff()


@contextmanager
def hired(
    staff: Staff, spec: StudySpec, about: Callable[[], Mapping[str, Any] | None]
) -> Iterator[Bench]:
    """Open a study, and have who is asked for do its jobs as long as this context lasts.

    Args:
        staff: Who is asked for.
        spec: The study.
        about: Returns what is stored of its beginning; asked again when a worker starts.

    Raises:
        MergeError: The study cannot be opened, or there are too few devices.
    """
    count, begun = staff.workers or 1, about()
    if count == 1:
        yield Worker(spec.data, spec.folder, begun)
        return
    known = begun["threads"] if begun else spec.engine.threads
    gpus = gpus_here()
    each = gpus_per_worker(spec.engine, count, gpus)
    parts = shares(count, cpus_here(), gpus, known, each)
    permissions, directory = Permissions.here(), os.getcwd()

    def opening(number: int) -> Opening:
        part = parts[number]
        return Opening(
            study=spec.data,
            folder=str(spec.folder.resolve()),
            about=about(),
            permissions=permissions,
            threads=part.threads,
            environment=part.environment,
            directory=directory,
        )

    home = Worker(spec.data, spec.folder, begun, builds=False)
    workers = Processes(count, opening)
    try:
        yield Crew(home, workers)
    finally:
        workers.close()

"""Who does a study's jobs: this process alone, or workers that the command line asks for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from evaluators.jsonl.judge_key import is_key
from merge_core.errors import ParameterError
from search.spec.study_file import StudySpec
from search.trial.worker import Bench, Worker
from search.workers.crew import Crew
from search.workers.devices import Share, cpus_here, gpus_here, gpus_per_worker, shares
from search.workers.opening import Opening
from search.workers.permissions import Permissions
from search.workers.processes import Processes
from search.workers.protocol import Workers
from search.workers.sameness import deciding

if TYPE_CHECKING:
    from search.workers.on_ray import Cluster, Needs

About = Callable[[], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Staff:
    """What a run is asked for.

    Args:
        workers: How many, at least 1. None: as many as a cluster has room for; without ``ray``
            that or 1 is the coordinator, which does all itself.
        ray: A Ray cluster's address, or ``local``; None: they are processes of this machine.
        ray_cpus: CPUs of the cluster that each takes, above 0; None: as many as it has threads.

    Raises:
        ParameterError: ``ray_cpus`` without ``ray``, or Ray is not installed.
    """

    workers: int | None = None
    ray: str | None = None
    ray_cpus: float | None = None

    def __post_init__(self) -> None:
        if self.ray_cpus is not None and self.ray is None:
            raise ParameterError("--ray-cpus says what workers take of a cluster; name it by --ray")
        if self.ray is not None and find_spec("ray") is None:
            raise ParameterError("--ray: Ray is not installed; run `pip install 'mergetune[ray]'`")


ALONE = Staff()


@contextmanager
def hired(
    staff: Staff, spec: StudySpec, about: About, tell: Callable[[str], None] = lambda _: None
) -> Iterator[Bench]:
    """Open a study, and have who is asked for do its jobs as long as this context lasts.

    Args:
        staff: Who is asked for.
        spec: The study.
        about: Returns what is stored of its beginning; asked again when a worker starts.
        tell: Is told how many workers there are, where that was not said.

    Raises:
        MergeError: The study cannot be opened, or there are too few devices.
    """
    begun = about()
    if staff.ray is None and (staff.workers or 1) == 1:
        yield Worker(spec.data, spec.folder, begun)
        return
    home = Worker(spec.data, spec.folder, begun, builds=False)
    known = spec.engine.threads or (begun["threads"] if begun else None)
    if staff.ray is None:
        workers: Workers = _processes(staff.workers or 1, spec, about, known)
    else:
        workers = _actors(staff, home, about, known, tell)
    try:
        yield Crew(home, workers)
    finally:
        workers.close()


def _processes(count: int, spec: StudySpec, about: About, known: int | None) -> Processes:
    gpus = gpus_here()
    each = gpus_per_worker(spec.engine, count, gpus)
    parts = shares(count, cpus_here(), gpus, known, each)
    opening = _openings(spec, about)
    return Processes(count, lambda number: opening(parts[number]))


def _actors(
    staff: Staff, home: Worker, about: About, known: int | None, tell: Callable[[str], None]
) -> Workers:
    from search.workers import on_ray  # imports ray

    local, count = staff.ray == on_ray.LOCAL, staff.workers
    cpus = staff.ray_cpus or known or (max(1, len(cpus_here()) // count) if local and count else 1)
    least = math.ceil(cpus * (count or 1))
    cluster = on_ray.Cluster(staff.ray or on_ray.LOCAL, least)
    try:
        each = gpus_per_worker(home.spec.engine, count or 2, ["any"] * cluster.gpus)
        needs = on_ray.Needs(cpus, each)
        number = _placed(cluster, needs, count)
        if count is None:
            tell(
                f"{number} workers, each with {needs.text}: what the cluster has room for; "
                f"--workers {number} gives the same study wherever there is room for as many"
            )
        threads = known or max(1, int(cpus))
        part = Share({"OMP_NUM_THREADS": str(threads), **_keys()}, threads)
        opening = _openings(home.spec, about)
        return on_ray.OnRay(cluster, number, needs, lambda _: opening(part), deciding(home))
    except BaseException:
        cluster.close()
        raise


def _placed(cluster: Cluster, needs: Needs, count: int | None) -> int:
    """Return how many workers a cluster shall have.

    Raises:
        ParameterError: There is not enough room.
    """
    room = cluster.room(needs)
    if (count or 1) > room:
        raise ParameterError(
            f"--ray: each worker takes {needs.text}, got {count or 1} workers and a cluster with "
            f"room for {room}; ask for fewer, or set engine.device, engine.threads or --ray-cpus"
        )
    return count or room


def _openings(spec: StudySpec, about: About) -> Callable[[Share], Opening]:
    permissions, directory = Permissions.here(), os.getcwd()

    def opening(part: Share) -> Opening:
        return Opening(
            study=spec.data,
            folder=str(spec.folder.resolve()),
            about=about(),
            permissions=permissions,
            threads=part.threads,
            environment=part.environment,
            directory=directory,
        )

    return opening


def _keys() -> dict[str, str]:
    """Return the judges' keys that the command line lets go to their hosts, for other machines."""
    names = {pair.partition("=")[0] for pair in Permissions.here().keys}
    return {name: os.environ[name] for name in sorted(names) if is_key(name) and name in os.environ}

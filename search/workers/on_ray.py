"""Workers as actors of a Ray cluster, one for each share of its GPUs or CPUs.

Nothing else imports Ray. An actor is a process on one of the cluster's machines. What it does not
find there of the study is sent to its machine once (``ferry``), and what may differ between
machines without being seen (libraries, tasks, models of the hub) is compared before it has a job.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray._private.worker

from merge_core.errors import ParameterError
from search.trial.worker import Worker
from search.workers import gates
from search.workers.answers import Answer
from search.workers.cargo import Cargo, Folders, opening_at
from search.workers.devices import cpus_here
from search.workers.ferry import Ferry, Shore
from search.workers.opening import Opening
from search.workers.parcels import Parcel, Sealed
from search.workers.pool import Died, NoRoom, Pool
from search.workers.sameness import check_same, deciding_at_work

LOCAL = "local"
STORE = 100 * 2**20  # bytes of a local cluster's object store: nothing large goes through it
WINDOW = 4  # pieces of a file that are under way at a time
PATIENCE = 120.0  # seconds that an actor waits for a place before others do its first job
SHOWN = 300  # characters of what Ray says
KNOCK = 10.0  # seconds to connect
END = 10.0  # seconds that threads have to see that all is over


@dataclass(frozen=True)
class Needs:
    """What each actor takes of its machine; shares of a CPU are possible."""

    cpus: float
    gpus: int

    @property
    def text(self) -> str:
        """In words."""
        both = {"GPU": self.gpus, "CPU": self.cpus}.items()
        return " and ".join(f"{n:g} {kind}{'s' * (n != 1)}" for kind, n in both if n)


class Cluster:
    """A connection to a cluster; one for a process at a time.

    Args:
        address: ``auto`` or ``HOST:PORT`` of a cluster that this machine is part of, or ``local``:
            one of this machine alone, which ends with this process.
        cpus: How many a local cluster has at least; more than there are means that they are shared.

    Raises:
        ParameterError: There is no such cluster.
    """

    def __init__(self, address: str, cpus: int = 1) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or a local one tells Ray's makers
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")  # a machine may be busy
        more: dict[str, Any] = {}
        if address == LOCAL:
            cpus = max(cpus, len(cpus_here()))
            more = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": STORE}
        else:
            _check_reached(address)
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **more)
        except Exception as error:  # of many kinds: ConnectionError, ValueError, RuntimeError, ...
            raise ParameterError(f"--ray {address}: {_in_a_line(error)}") from error
        finally:
            if threading.current_thread() is threading.main_thread() and before is not None:
                signal.signal(signal.SIGTERM, before)  # Ray has set its own
        # what it says of workers that die would stand in the middle of what we print as JSON
        ray._private.worker._worker_logs_enabled = False

    @property
    def gpus(self) -> int:
        """How many GPUs there are."""
        return sum(int(of.get("GPU", 0)) for of in self._machines())

    def room(self, needs: Needs) -> int:
        """Return how many actors there is room for."""
        found = 0
        for of in self._machines():
            most = [of.get("CPU", 0) / needs.cpus] if needs.cpus else []
            most += [of.get("GPU", 0) / needs.gpus] if needs.gpus else []
            found += math.floor(min(most, default=0))
        return found

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        ray.shutdown()

    def _machines(self) -> list[Mapping[str, float]]:
        nodes: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]
        return [node["Resources"] for node in nodes if node["Alive"]]


def _check_reached(address: str) -> None:
    """Refuse an address where nobody listens; Ray itself would try for minutes.

    Raises:
        ParameterError: There is nobody, or it is none.
    """
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        raise ParameterError(
            "--ray: expected local, or auto or HOST:PORT of a cluster that this machine is part of "
            f"(`ray start --address HOST:PORT --num-cpus 0` joins one), got {address!r}"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ParameterError(
            f"--ray {address}: no cluster is to be reached there: {why}"
        ) from error


class OnRay(Pool):
    """Actors of a cluster; see ``protocol.Workers``.

    Args:
        cluster: Where they are.
        count: How many, at least one; those that find no place leave their jobs to the others.
        needs: Of each.
        opening: Takes a worker's number, from 0, and says how the study is opened on this machine;
            asked when it starts.
        expected: What decides scores here, see ``sameness.deciding``.
    """

    def __init__(
        self,
        cluster: Cluster,
        count: int,
        needs: Needs,
        opening: Callable[[int], Opening],
        expected: Mapping[str, str],
    ) -> None:
        self._cluster = cluster
        home = _Home(Ferry(Cargo.of(opening(0))), dict(expected), threading.Lock())
        super().__init__(count, lambda number: _Actor(needs, opening(number), home))

    def close(self) -> None:
        """End all actors, and leave the cluster."""
        super().close()
        self.join(END)
        self._cluster.close()


@dataclass(frozen=True)
class _Home:
    """What every actor is given."""

    ferry: Ferry
    known: dict[str, str]  # what decides scores here, and on machines so far
    lock: threading.Lock


@dataclass(frozen=True)
class _Facts:
    """Of the process of an actor."""

    machine: str  # Ray's id of it
    words: str  # for messages


class _Desk:
    """An actor: the worker of a study in a process of its own."""

    def __init__(self) -> None:
        self._shore = Shore()
        self._worker: Worker | None = None
        self._folder = Path()

    def facts(self) -> _Facts:
        node = ray.get_runtime_context().get_node_id()
        return _Facts(node, f"{socket.gethostname()} (process {os.getpid()})")

    def ashore(self, method: str, *arguments: Any) -> Answer:
        return Answer.of(lambda: getattr(self._shore, method)(*arguments))

    def open(self, opening: Opening) -> Answer:
        return Answer.of(lambda: self._opened(opening))

    def ask(self, method: str, arguments: tuple[Any, ...], files: Mapping[str, bytes]) -> Answer:
        return Answer.of(lambda: self._asked(method, arguments, files))

    def _opened(self, opening: Opening) -> dict[str, str]:
        self._worker = worker = opening.open()
        self._folder = Path(opening.folder)
        return deciding_at_work(worker)

    def _asked(
        self, method: str, arguments: tuple[Any, ...], files: Mapping[str, bytes]
    ) -> tuple[Any, Mapping[str, bytes]]:
        gates.keep(files, self._folder)
        found = getattr(self._worker, method)(*arguments)
        return found, gates.files_of([found], self._folder)


class _Actor:
    """The coordinator's end of an actor; see ``pool.Running``."""

    def __init__(self, needs: Needs, opening: Opening, home: _Home) -> None:
        self._needs, self._opening, self._home = needs, opening, home
        kind: Any = ray.remote(_Desk)
        self._desk = kind.options(num_cpus=needs.cpus, num_gpus=needs.gpus).remote()
        self._facts = self._desk.facts.remote()
        self._open = self._apart = False
        self.where = "not placed yet"

    def wait_until_open(self) -> None:
        """See ``pool.Running``."""
        if self._open:
            return
        if not ray.wait([self._facts], timeout=PATIENCE)[0]:
            raise NoRoom(f"it takes {self._needs.text}, which no machine of the cluster has free")
        facts: _Facts = _got(self._facts, opening=True)
        cargo = self._home.ferry.cargo
        landing = _Landing(self._desk)
        places = self._home.ferry.places(facts.machine, landing)
        opening = opening_at(self._opening, cargo, places)
        there = _got(self._desk.open.remote(opening), opening=True).given()
        self.where = facts.words
        with self._home.lock:
            check_same(self._home.known, there, self.where)
        self._apart = not landing.shares(cargo.folders)
        self._open = True

    def ask(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """See ``pool.Running``."""
        folder = Path(self._opening.folder)
        files = gates.files_of(arguments, folder) if self._apart else {}
        answer = _got(self._desk.ask.remote(method, arguments, files))
        found, made = answer.given()
        gates.keep(made, folder)
        return found

    def end(self) -> None:
        """End the actor's process."""
        ray.kill(self._desk)


class _Landing:
    """The machine of an actor; see ``ferry.Landing``."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk

    def lacks(self, parcels: Sequence[Parcel]) -> list[int]:
        found: list[int] = self._asked("lacks", parcels)
        return found

    def place_of(self, sealed: Sealed) -> str | None:
        found: str | None = self._asked("place_of", sealed)
        return found

    def shares(self, folders: Folders) -> bool:
        found: bool = self._asked("shares", folders)
        return found

    def receive(self, sealed: Sealed, pieces: Iterator[tuple[int, bytes]]) -> None:
        self._asked("begin", sealed)
        sent: deque[Any] = deque()
        for number, piece in pieces:
            sent.append(self._desk.ashore.remote("take", number, piece))
            if len(sent) == WINDOW:
                self._result(sent.popleft())
        for answer in sent:
            self._result(answer)
        self._asked("finish")

    def _asked(self, method: str, *arguments: Any) -> Any:
        return self._result(self._desk.ashore.remote(method, *arguments))

    def _result(self, answer: Any) -> Any:
        return _got(answer, opening=True).given()


def _got(answer: Any, *, opening: bool = False) -> Any:
    """Wait for what an actor answers.

    Raises:
        Died: It ended, or its machine did, or cannot be reached.
    """
    try:
        return ray.get(answer)
    except ray.exceptions.RayTaskError:  # what cannot travel back
        raise
    except ray.exceptions.RayError as error:
        raise Died(_in_a_line(error), opening=opening) from error


def _in_a_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:SHOWN]

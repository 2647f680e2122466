"""The coordinator's bench: the study opened here, its jobs done by workers elsewhere."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from search.trial.failure import Failure
from search.trial.worker import Job, Result, Worker
from search.workers.protocol import WorkerDiedError, Workers


class Crew:
    """See ``search.trial.worker.Bench``. No candidate is ever built in this process.

    Args:
        home: The study as this process has opened it.
        workers: Who does the jobs.
    """

    def __init__(self, home: Worker, workers: Workers) -> None:
        self.spec, self.builder = home.spec, home.builder
        self.tasks, self.track = home.tasks, home.track
        self.count = workers.count
        self._home, self._workers = home, workers
        self._begun: float | None = None

    @property
    def seen(self) -> Mapping[str, Any]:
        """What the engine was whose scores were taken last."""
        return self._home.seen

    def expect(self, engine: Mapping[str, Any]) -> None:
        """Hear which engine scores are to come from; nothing: from whichever."""
        self._home.expect(engine)

    def check_engine(self, result: Result) -> None:
        """Refuse scores by another engine than the study's; see ``Worker.check_engine``."""
        self._home.check_engine(result)

    def submit(self, job: Job) -> Future[Result]:
        """Have the next free worker do a job; that it kills workers is the candidate's fault."""
        if self._begun is None:
            self._begun = time.monotonic()
        found: Future[Result] = Future()
        found.set_running_or_notify_cancel()
        self._workers.call("run", job).add_done_callback(_into(found))
        return found

    def run(self, job: Job) -> Result:
        """Have a job done, and wait for it."""
        return self.submit(job).result()

    def facts(self) -> Mapping[str, Any]:
        """Return what is stored of the parents and of a worker's machine."""
        found: Mapping[str, Any] = self._asked("facts")
        return found

    def told(self) -> Mapping[str, str]:
        """Return words for where and how a worker builds candidates."""
        found: Mapping[str, str] = self._asked("told")
        return found

    def angular(self, entry: str, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return how far layers turn the residual stream; see ``Worker.angular``."""
        found: Sequence[Sequence[float]] = self._asked("angular", entry, texts)
        return found

    @property
    def utilisation(self) -> float | None:
        """Share of the time since the first job that the workers were at work, in [0, 1]."""
        if self._begun is None:
            return None
        return self._workers.busy / (self.count * (time.monotonic() - self._begun))

    def _asked(self, method: str, *arguments: Any) -> Any:
        return self._workers.call(method, *arguments).result()


def _into(found: Future[Result]) -> Callable[[Future[Any]], None]:
    """Return a callback that hands an answer on, and makes a result of workers' deaths."""

    def hand_on(answer: Future[Any]) -> None:
        error = answer.exception()
        if isinstance(error, WorkerDiedError):
            found.set_result(Result(failure=_fatal(error)))
        elif error is not None:
            found.set_exception(error)
        else:
            found.set_result(answer.result())

    return hand_on


def _fatal(error: WorkerDiedError) -> Failure:
    text = "".join(traceback.format_exception(error))
    return Failure(True, type(error).__name__, str(error), str(error), text)

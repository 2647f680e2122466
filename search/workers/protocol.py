"""What a coordinator asks of its workers, in whichever processes they are."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol

from merge_core.errors import MergeError

MOST_DEATHS = 3  # of workers at one call, one after the other: then it is the call that kills them


class WorkerDiedError(MergeError):
    """A call ended the worker that did it, and those that took its place."""


class Workers(Protocol):
    """Workers of one study, each of which has opened it and does one call at a time.

    Attributes:
        count: How many there are.
        busy: Seconds that they have spent on calls so far, all together.
    """

    count: int
    busy: float

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        """Have the next free worker call one of its methods (``search.trial.worker.Worker``).

        Calls are begun in the order in which they were asked for. A worker that dies is replaced,
        and its call done again.

        Args:
            method: Name of the method, such as ``run``.
            arguments: Values that can be pickled, as the answer must be.

        Returns:
            The answer. Its ``result()`` raises what the method raised, what kept the worker from
            opening the study (``MergeError``), or ``WorkerDiedError`` after ``MOST_DEATHS``.
        """
        ...

    def close(self) -> None:
        """End all workers at once; calls that are not done never are."""
        ...

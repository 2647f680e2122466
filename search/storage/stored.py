"""What Optuna does for a study in its storage; what fails there is one line of ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from merge_core.errors import MergeError, StorageError

if TYPE_CHECKING:
    import optuna

T = TypeVar("T")
PATIENCE = 60.0  # seconds that SQLite waits for a lock, and that commits are tried again for
PAUSE = 0.5  # seconds between two tries
PASSING = ("database is locked", "database table is locked")  # SQLite's words
ADVICE = {  # words of SQLite -> what to do
    "is locked": f"another program has held it for {PATIENCE:.0f} s; end that and run again",
    "is full": "make room and run again to go on",
    "readonly": "make file and folder writable",
    "unable to open": "it must be a file in a folder, both readable and writable",
    "disk i/o error": "look after the disk, maybe it is full, and run again to go on",
    "malformed": "the file is damaged; put a copy of it back, or delete it to start anew",
    "not a database": "name another file",
}


class Stored:
    """One study in its storage; every method raises ``StorageError`` where that fails.

    Args:
        study: The stored Optuna study.
        url: Of its storage, as it may be shown.
    """

    def __init__(self, study: optuna.Study, url: str) -> None:
        self._study, self._url = study, url

    @property
    def name(self) -> str:
        """Name of the study."""
        return self._study.study_name

    @property
    def objectives(self) -> int:
        """How many numbers of a trial are maximized; 0 where another direction is among them."""
        ways = self._done("read", lambda: self._study.directions)
        return len(ways) if {way.name for way in ways} == {"MAXIMIZE"} else 0

    def attributes(self) -> dict[str, Any]:
        """Return what is stored of the study as a whole."""
        return self._done("read", lambda: self._study.user_attrs)

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """Return its trials by number; do not write to them."""
        return self._done("read", lambda: self._study.get_trials(deepcopy=False))

    def set(self, key: str, value: Any) -> None:
        """Store an attribute of the study, in one commit."""
        self._done("written", lambda: self._study.set_user_attr(key, value))

    def add(self, trial: optuna.trial.FrozenTrial, number: int) -> None:
        """Store a trial in one commit, and once where the answer to a commit was lost.

        Args:
            trial: What to store.
            number: That it must get.

        Raises:
            MergeError: Another process has written the study, so the number is another's.
        """
        tried: list[bool] = []

        def add() -> None:
            if tried and len(self.trials()) == number + 1:
                return  # what seemed to fail had not
            self._check_count(number)
            tried.append(True)
            self._study.add_trial(trial)

        self._done("written", add)
        self._check_count(number + 1)  # two that added at once have one number

    def _check_count(self, number: int) -> None:
        stored = len(self.trials())
        if stored != number:
            raise MergeError(
                f"study {self.name!r} in {self._url} has {stored} trials where this run has stored "
                f"{number}: another process writes it, too. Stop that one and run again to go on"
            )

    def _done(self, what: str, work: Callable[[], T]) -> T:
        until = time.monotonic() + PATIENCE
        with told(self._url, what):
            while True:
                try:
                    return work()
                except Exception as error:
                    if not _is_passing(error) or time.monotonic() > until:
                        raise
                    time.sleep(PAUSE)


@contextmanager
def told(url: str, what: str) -> Iterator[None]:
    """Make one line of whatever a storage raises.

    Args:
        url: Of the storage, as it may be shown.
        what: It cannot be: ``opened``, ``read`` or ``written``.

    Raises:
        StorageError: For every error but ours.
    """
    try:
        yield
    except MergeError:
        raise
    except Exception as error:
        damaged = isinstance(error, (LookupError, ValueError, TypeError, AssertionError))
        why = "what it holds is damaged: " if damaged else ""
        raise StorageError(f"storage {url}: cannot be {what}: {why}{said_by(error)}") from error


def said_by(error: BaseException) -> str:
    """Return what a driver says, and what to do about it."""
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    cause = _of_database(error)
    said = cause.orig if isinstance(cause, DBAPIError) else cause
    text = " ".join(str(said).split())
    if not isinstance(cause, SQLAlchemyError):
        return f"{type(cause).__name__}: {text}"
    advice = next((told for words, told in ADVICE.items() if words in text.lower()), "")
    return f"{text}; {advice}" if advice else text


def _of_database(error: BaseException) -> BaseException:
    """Return SQLAlchemy's error inside one of Optuna's."""
    from optuna.exceptions import StorageInternalError

    inside = isinstance(error, StorageInternalError) and error.__cause__ is not None
    return error.__cause__ if inside else error  # type: ignore[return-value]


def _is_passing(error: BaseException) -> bool:
    """Return whether the same may succeed in a moment: a lock, a connection that was lost."""
    from sqlalchemy.exc import DBAPIError

    cause = _of_database(error)
    if not isinstance(cause, DBAPIError):
        return False
    return cause.connection_invalidated or str(cause.orig) in PASSING

"""What Optuna does for a study in its storage; what fails there is one line of ours."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from merge_core.errors import MergeError, StorageError
from search.storage.away import is_passing, said_by

if TYPE_CHECKING:
    import optuna

T = TypeVar("T")
PATIENCE = 300.0  # seconds for which a storage that is away is tried again
PAUSE = 0.5  # seconds between the first two tries; then twice as many, up to
LONGEST = 5.0


def to_stderr(line: str) -> None:
    """Tell what nobody else listens to."""
    print(line, file=sys.stderr)


class Guard:
    """Does what a storage is asked for: again while it is away, and one line for what fails.

    Args:
        url: Of the storage, as it may be shown.
        secrets: What no message may have, whatever a driver says.
        notice: Is told that a storage is away, and that it is back.
        stop: Asked whether the run is to end, and so not to wait any more.
    """

    def __init__(
        self,
        url: str,
        secrets: Sequence[str] = (),
        notice: Callable[[str], None] = to_stderr,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.url, self._secrets, self.notice, self._stop = url, secrets, notice, stop

    def told(self, line: str) -> None:
        """Tell something about the storage."""
        self.notice(f"storage {self.url}: {line}")

    def done(self, what: str, work: Callable[[], T], *, patient: bool = True) -> T:
        """Return what ``work`` returns.

        Args:
            what: The storage cannot be, if it fails: ``opened``, ``read`` or ``written``.
            work: Is done again; it must not matter that it was done before and seemed to fail.
            patient: Wait for a storage that is away.

        Raises:
            StorageError: For every error but ours.
        """
        began, pause, said = time.monotonic(), PAUSE, ""
        with self.failing(what):
            while True:
                try:
                    found = work()
                except Exception as error:
                    over = time.monotonic() - began > PATIENCE
                    if not patient or over or not is_passing(error):
                        raise
                    if not said:
                        said = self._hidden(said_by(error))
                        self.told(f"away (said {said}), trying again for {PATIENCE:.0f} s")
                    if self._stop():
                        raise
                    time.sleep(pause)
                    pause = min(2 * pause, LONGEST)
                else:
                    if said:
                        self.told(f"back after {time.monotonic() - began:.0f} s")
                    return found

    @contextmanager
    def failing(self, what: str) -> Iterator[None]:
        """Make one line of whatever a storage raises, see ``done``."""
        try:
            yield
        except MergeError:
            raise
        except Exception as error:
            damaged = isinstance(error, (LookupError, ValueError, TypeError, AssertionError))
            why = "what it holds is damaged: " if damaged else ""
            said = self._hidden(said_by(error))  # a driver's words may hold a password
            line = f"storage {self.url}: cannot be {what}: {why}{said}"
            raise StorageError(line) from None

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class Stored:
    """One study in its storage; every method raises ``StorageError`` where that fails.

    Args:
        study: The stored Optuna study.
        guard: Of its storage.
    """

    def __init__(self, study: optuna.Study, guard: Guard) -> None:
        self._study, self.guard = study, guard

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

    def small(self, *, patient: bool = True) -> dict[str, Any]:
        """Return Optuna's system attributes of the study: few and short, so read at little cost."""
        storage, study = self._study._storage, self._study._study_id
        return self.guard.done(
            "read", lambda: storage.get_study_system_attrs(study), patient=patient
        )

    def set_small(self, key: str, value: Any, *, patient: bool = True) -> None:
        """Store one of them, in one commit."""
        storage, study = self._study._storage, self._study._study_id
        self.guard.done(
            "written", lambda: storage.set_study_system_attr(study, key, value), patient=patient
        )

    def add(self, trial: optuna.trial.FrozenTrial, number: int) -> None:
        """Store a trial in one commit, and once where the answer to a commit was lost.

        Args:
            trial: What to store.
            number: That it must get.

        Raises:
            MergeError: Another process has written the study, so the number is another's.
        """
        tried: list[bool] = []
        trial.number = number  # `BulkStorage` stores it under no other

        def add() -> None:
            if tried and self._is_stored(trial):
                return  # what seemed to fail had not
            self.check_count(number)
            tried.append(True)
            try:
                self._study.add_trial(trial)
            except MergeError:  # Optuna has tried again by itself what seemed to fail
                if not self._is_stored(trial):
                    raise

        self._done("written", add)
        if self._counting is None:  # else two that add at once are told apart in the transaction
            self.check_count(number + 1)

    def _is_stored(self, trial: optuna.trial.FrozenTrial) -> bool:
        stored = self.trials()
        if len(stored) != trial.number + 1:
            return False
        last = stored[-1]
        return (last.state, last.params, last.values) == (trial.state, trial.params, trial.values)

    def check_count(self, number: int) -> None:
        """Refuse to go on where another process has written the study.

        Args:
            number: Of the trials that this process knows of.

        Raises:
            MergeError: There are more, or fewer.
        """
        stored = self._count()
        if stored != number:
            raise MergeError(
                f"study {self.name!r} in {self.guard.url} has {stored} trials where this run has "
                f"stored {number}: another process writes it, too. Stop that one and run again to "
                "go on"
            )

    def names(self) -> list[str]:
        """Return the names of all studies of its storage."""
        import optuna

        storage = self._study._storage
        return self._done("read", lambda: optuna.get_all_study_names(storage))

    def other(self, name: str) -> optuna.Study:
        """Return another study of its storage."""
        import optuna

        storage = self._study._storage
        return self._done("read", lambda: optuna.load_study(study_name=name, storage=storage))

    def copy_to(self, name: str, attributes: Mapping[str, Any], last: Mapping[str, Any]) -> None:
        """Copy its trials to a new study of its storage.

        Args:
            name: Of the new study.
            attributes: Of the new study as a whole.
            last: More of these, which are stored when all else is.
        """
        import optuna

        def copy() -> None:
            storage, ways = self._study._storage, self._study.directions
            made = optuna.create_study(storage=storage, study_name=name, directions=ways)
            for key, value in attributes.items():
                made.set_user_attr(key, value)
            for trial in self._study.get_trials(deepcopy=False):
                made.add_trial(trial)
            for key, value in last.items():
                made.set_user_attr(key, value)

        with self.guard.failing("written"):
            copy()

    def remove(self) -> None:
        """Remove the study from its storage."""
        storage, study = self._study._storage, self._study._study_id
        with self.guard.failing("written"):
            storage.delete_study(study)

    def take(self) -> None:
        """Make ready to write much."""
        if hasattr(self._backend, "taken"):
            self._done("written", lambda: self._backend.taken(self.guard.told))

    def release(self) -> None:
        """Leave the storage as whoever opens it next wants to find it, if that can be done."""
        if hasattr(self._backend, "released"):
            with suppress(StorageError):  # SQLite's log stays beside the file, and loses nothing
                self.guard.done("written", self._backend.released, patient=False)

    def _count(self) -> int:
        if (count := self._counting) is None:
            return len(self.trials())
        return self._done("read", lambda: count(self._study._study_id))

    @property
    def _counting(self) -> Callable[[int], int] | None:
        """What counts a study's trials without reading them: of storages that check numbers."""
        return getattr(self._backend, "count_trials", None)

    @property
    def _backend(self) -> Any:
        """Our own storage behind Optuna's cache, where it has one."""
        return getattr(self._study._storage, "_backend", None)

    def _done(self, what: str, work: Callable[[], T]) -> T:
        return self.guard.done(what, work)

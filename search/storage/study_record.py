"""The study in the user's storage: one writer, one commit for each settled trial, whole.

A trial is added when it is settled (``add_trial``), so a killed run loses only what was in flight
and any Optuna tool can open the database. How a trial is written: ``trial_codec``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from merge_core.errors import Problems, StorageError, UnknownNameError
from merge_core.validation import StrictModel, read
from search.spec.storage_url import storage_file
from search.storage.about import (
    ABOUT,
    FORMAT,
    ITEMS,
    format_of,
    of_other_length,
    read_about,
    read_ids,
)
from search.storage.attributes import Attributes
from search.storage.kept import Finalists, Look, Looks
from search.storage.lease import Lease
from search.storage.packed import Ids, packed_ids
from search.storage.runs import RUNS, stored_runs
from search.storage.runs import attribute as runs_attribute
from search.storage.said import Said, Samples
from search.storage.stored import Guard, Stored
from search.storage.tensor_sums import TENSORS, Sums, packed_sums, unpacked_sums
from search.storage.trial_codec import attribute, frozen, thawed
from search.trial.environment import asked_otherwise
from search.trial.trial import Measurement, Trial

if TYPE_CHECKING:
    import optuna

M = TypeVar("M", bound=StrictModel)
T = TypeVar("T")


class Record:
    """One study in its storage.

    Args:
        study: The stored Optuna study.
        url: Of its storage, as it may be shown.
        guard: Of its storage; None: one that knows no secrets.
    """

    def __init__(self, study: optuna.Study, url: str, guard: Guard | None = None) -> None:
        self._stored = Stored(study, guard or Guard(url))
        self.url = url
        self._lease: Lease | None = None
        self._attributes = Attributes(self._stored, self._damaged, self._check_alone)
        self.said = Said(self._attributes)
        self._about: dict[str, Any] | None = None
        self._ids: Ids | None = None
        self._read()

    def _read(self) -> None:
        self._attributes.read()
        self._take_about()
        stored = self._stored.trials()
        self.trials = [thawed(t, self._attributes.values) for t in stored]
        self.distributions = {k: d for t in stored for k, d in t.distributions.items()}
        pools = (self._about or {}).get("pools", {})
        for trial in self.trials:
            if wrong := of_other_length(trial, pools):
                raise self._damaged(wrong)

    def _take_about(self) -> None:
        """Check what all trials share, and keep it in the form of the newest format."""
        found = self._attributes.values.get(ABOUT)
        if format_of(found) > FORMAT:
            raise StorageError(
                f"study {self.name!r} in {self.url} has format {format_of(found)}, and this "
                f"version of mergetune knows 1 to {FORMAT}; install the version that wrote it"
            )
        problems: Problems = []
        self._about, self._ids = None, None
        if found is not None:
            self._about, self._ids = read_about(found, ABOUT, problems)
        self._check(problems)

    def _check(self, problems: Problems) -> None:
        if problems:
            raise self._damaged("; ".join(f"{path}: {rule}" for path, rule in problems))

    def _damaged(self, why: str) -> StorageError:
        return StorageError(f"study {self.name!r} in {self.url} is damaged: {why}")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one who writes the study, as it is now.

        Raises:
            MergeError: Another process writes it.
        """
        held = False
        try:
            with Lease(self._stored, f"study {self.name!r} in {self.url}") as self._lease:
                held = True
                self._stored.take()
                self._read()
                try:
                    yield
                finally:
                    self._lease = None
        finally:
            if held:
                self._stored.release()

    @property
    def name(self) -> str:
        """Name of the study."""
        return self._stored.name

    @property
    def stored(self) -> Stored:
        """The study as its storage holds it."""
        return self._stored

    @property
    def objectives(self) -> int:
        """How many numbers of a trial are maximized; 0 where one is minimized."""
        return self._stored.objectives

    @property
    def about(self) -> dict[str, Any] | None:
        """What was stored when the study began; None if it was killed before that.

        It is in the form of this version's format, but for ``format``, which is the stored one.
        """
        return self._about

    def item_ids(self, pool: str) -> dict[str, tuple[str, ...]]:
        """Return task -> the ids of its items in a pool, in the order of the scores.

        Args:
            pool: ``search``, ``select`` or ``report``; a study without it gives no task.

        Raises:
            StorageError: They are damaged.
        """
        if self._ids is None:
            self._ids = self._stored_ids()
        return {task: tuple(ids) for task, ids in self._ids.get(pool, {}).items()}

    def _stored_ids(self) -> Ids:
        if self._about is None:
            return {}
        problems: Problems = []
        found = read_ids(self._attributes.values.get(ITEMS), self._about, problems)
        self._check(problems)
        return found

    def path_to(self, folder: Path) -> str:
        """Return a folder's path as the record stores it: from its database's folder, if any."""
        file = storage_file(self.url)
        return (
            str(folder) if file is None else Path(os.path.relpath(folder, file.parent)).as_posix()
        )

    def folder(self) -> Path:
        """Return the folder of the study file that the study began with."""
        assert self.about is not None
        file = storage_file(self.url)
        here = file.parent if file else Path()
        return Path(os.path.normpath(here / self.about["folder"]))

    def begin(
        self, about: Mapping[str, Any], ids: Ids | None = None, sums: Sums | None = None
    ) -> None:
        """Store what all trials share, in this version's format, in place of what was stored.

        Args:
            about: All but the ids of the items.
            ids: Pool -> task -> ids, in the pool's order; None: those that the study has.
            sums: Of the parents' tensors; None: those that the study has.
        """
        if sums is not None:
            self._attributes.set(TENSORS, packed_sums(sums))
        older = self._ids if format_of(self._attributes.values.get(ABOUT)) < FORMAT else None
        if (ids := ids or older) is not None:  # before what counts them
            self._attributes.set(ITEMS, packed_ids(ids))
        self._attributes.set(ABOUT, {**about, "format": FORMAT})
        self._take_about()

    @property
    def prior(self) -> Any:
        """What was taken over from another study, as it is stored, or None."""
        return self._attributes.values.get("prior")

    def keep_prior(self, taken: Mapping[str, Any]) -> None:
        """Store what is taken over from another study, in one commit, before the study begins."""
        self._attributes.set("prior", dict(taken))

    @property
    def tensor_sums(self) -> Sums:
        """Sums of the parents' tensors as the study began; none of versions that kept none."""
        return self._by(unpacked_sums, TENSORS)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The study's runs, oldest first, see ``runs.Run``; none of versions that kept none."""
        return self._by(stored_runs, RUNS)

    def keep_run(self, run: Mapping[str, Any], *, again: bool = False) -> None:
        """Store a run, in one commit; ``again``: more is known of the last one."""
        self._attributes.set(RUNS, runs_attribute([*self.runs[: -1 if again else None], run]))

    @property
    def finalists(self) -> Finalists | None:
        """The finalists, or None where none were chosen yet.

        Raises:
            StorageError: What is stored of them is damaged.
        """
        stored = self._attributes.values.get("finalists")
        return None if stored is None else self._whole(Finalists, stored, "finalists")

    def keep_finalists(self, finalists: Finalists) -> None:
        """Store who is to be scored on the select pool, in one commit."""
        self._attributes.set("finalists", finalists.model_dump())

    @property
    def looks(self) -> tuple[Look, ...]:
        """The winners, this study's and others', that were measured on its report items.

        Raises:
            StorageError: They are damaged.
        """
        stored = self._attributes.values.get("looks", [])
        return tuple(self._whole(Looks, {"looks": stored}, "looks").looks)

    def keep_looks(self, looks: Sequence[Look]) -> None:
        """Store the winners that were measured on the report items, in one commit."""
        if tuple(looks) != self.looks:
            self._attributes.set("looks", [look.model_dump() for look in looks])

    def _by(self, reader: Callable[[Any, Problems], T], key: str) -> T:
        problems: Problems = []
        found = reader(self._attributes.values.get(key), problems)
        self._check(problems)
        return found

    def _whole(self, model: type[M], stored: Any, key: str) -> M:
        problems: Problems = []
        found = read(model, stored, key, problems)
        self._check(problems)
        assert found is not None
        return found

    def add(self, trial: Trial, distributions: Mapping[str, Any]) -> None:
        """Store a settled trial in one commit.

        Args:
            trial: Its number must be the number of trials stored.
            distributions: Optuna's distribution of every name in ``trial.params``.

        Raises:
            MergeError: Another process has written the study, so the number is another's.
        """
        assert trial.number == len(self.trials)
        self._check_lease()
        self._stored.add(frozen(trial, distributions), trial.number)
        self.trials.append(trial)
        self.distributions |= {name: distributions[name] for name in trial.params}

    def add_measured(self, pool: str, number: int, found: Measurement) -> None:
        """Store what was measured of a trial on the select or report pool, in one commit.

        That it was dropped is stored when the study is finished: else it is tried again.
        """
        found = replace(found, asked=asked_otherwise(self._about, self.runs, number))
        if found.error is None:
            self._store_measured(pool, number, found)
        trial = self.trials[number]
        self.trials[number] = replace(trial, measured={**trial.measured, pool: found})

    @property
    def summary(self) -> dict[str, Any] | None:
        """The finished study's summary, or None."""
        found = self._attributes.values.get("summary")
        return found if isinstance(found, dict) else None  # all else is as good as none

    @property
    def samples(self) -> Samples:
        """Sample answers of the finished study's winner and best parent; none where there are none.

        Those of a winner that was chosen after the summary was stored do not go with it.
        """
        winner = (self.summary or {}).get("winner")
        return self.said.samples(winner.get("trial")) if isinstance(winner, Mapping) else {}

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Store the summary, and before it who was dropped."""
        later = [(t.number, pool, x) for t in self.trials for pool, x in t.measured.items()]
        for number, pool, found in (one for one in later if one[2].error is not None):
            self._store_measured(pool, number, found)
        if self.summary != summary:
            self._attributes.set("summary", dict(summary))

    def _check_alone(self) -> None:
        """Refuse to write where another process does: it has the lease, or has added a trial."""
        self._check_lease()
        if self._lease is not None:
            self._stored.check_count(len(self.trials))

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _store_measured(self, pool: str, number: int, found: Measurement) -> None:
        self._attributes.set(f"{pool}:{number}", attribute(found))

    def trial(self, number: int) -> Trial:
        """Return a trial by its number.

        Raises:
            UnknownNameError: The study has no such trial.
        """
        if not 0 <= number < len(self.trials):
            known = f"0 to {len(self.trials) - 1}" if self.trials else "none"
            raise UnknownNameError(f"study {self.name!r} has no trial {number}; it has {known}")
        return self.trials[number]

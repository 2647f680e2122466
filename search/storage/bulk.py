"""Optuna's storage for a process that opens one study, reads it whole and adds whole trials.

Optuna asks the database twice before it writes a parameter (whether the trial still runs, and what
distribution the study knows by that name), and once before an attribute; then it writes them one by
one. For the 64 parameters of a trial that is added whole that takes 40 ms, for 256 of them 160.
"""

from __future__ import annotations

import weakref
from collections.abc import Container
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage

from merge_core.errors import MergeError
from search.storage import rows

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, TrialState
    from sqlalchemy.orm import Session


class BulkStorage(RDBStorage):
    """``RDBStorage`` for a process that opens one study and adds whole trials.

    The first trial with a name or a distribution is written and checked by Optuna. One whose names
    all came before, with the very same distributions, is a few statements, whatever number of knobs
    it has, in the transaction that Optuna has begun for it. Where a later Optuna does not call the
    methods below, they are written, and read, as Optuna does. A trial that has a number already is
    stored under that one or, in the same transaction, not at all: Optuna tries again what failed,
    and a commit whose answer was lost has not.

    Args:
        url: As SQLAlchemy reads it; what stands in braces is Optuna's to fill.
        how: What SQLAlchemy's engine is made with.
        create: Make Optuna's tables where there are none.
    """

    def __init__(self, url: str, how: dict[str, Any] | None = None, *, create: bool = True) -> None:
        self._checked: dict[str, BaseDistribution] = {}
        try:
            super().__init__(url, how, skip_table_creation=not create)
        except Exception:
            if "engine" in self.__dict__:
                self.engine.dispose()
            raise
        weakref.finalize(self, self.engine.dispose)  # else drivers warn of connections left open

    def count_trials(self, study_id: int) -> int:
        """Return how many trials a study has, without reading them."""
        with self.engine.connect() as connection:
            return rows.count(connection, study_id)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        found = None
        if states is None and not included_trial_ids:
            with self.engine.connect() as connection:
                found = rows.read(connection, study_id, trial_id_greater_than)
        if found is not None:
            return found
        asked = (study_id, states, included_trial_ids, trial_id_greater_than)
        return super()._get_trials(*asked)

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> Any:
        trial = self._prepared(study_id, template_trial, session)
        wanted = -1 if template_trial is None else template_trial.number
        if wanted not in (-1, trial.number):
            raise MergeError(
                f"trial {wanted} cannot be stored: the study has {trial.number} trials, so another "
                "process writes it, too. Stop that one and run again to go on"
            )
        return trial

    def _prepared(self, study_id: int, template_trial: FrozenTrial | None, session: Session) -> Any:
        known = {} if template_trial is None else template_trial.distributions
        checked = all(self._checked.get(n) == d for n, d in known.items())
        if template_trial is None or template_trial.intermediate_values or not checked:
            made = super()._get_prepared_new_trial(study_id, template_trial, session)
            self._checked |= known
            return made
        return rows.add(session, study_id, template_trial)

"""Optuna's storage that writes a trial's parameters in one statement.

Optuna asks the database twice before it writes a parameter: whether the trial still runs, and what
distribution the study knows by that name; then it writes them one by one. For the 64 parameters of
a trial that is added whole that takes 40 ms, for 256 of them 160.
"""

from __future__ import annotations

import copy
import weakref
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from sqlalchemy import Float, Integer, String, column, insert, table

from merge_core.errors import MergeError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from sqlalchemy.orm import Session

PARAMS = table(  # as Optuna's storages have it since schema version 12
    "trial_params",
    column("trial_id", Integer),
    column("param_name", String),
    column("param_value", Float),
    column("distribution_json", String),
)


class BulkStorage(RDBStorage):
    """``RDBStorage`` for a process that opens one study and adds whole trials.

    The first trial with a name or a distribution is written and checked by Optuna. The parameters
    of one whose names all came before, with the very same distributions, are one statement, in the
    transaction that Optuna has begun for the rest. Where a later Optuna does not call the method
    below, they are written as Optuna does. A trial that has a number already is stored under that
    one or, in the same transaction, not at all: Optuna tries again what failed, and a commit whose
    answer was lost has not.
    """

    def __init__(self, *arguments: Any) -> None:
        self._checked: dict[str, BaseDistribution] = {}
        super().__init__(*arguments)
        weakref.finalize(self, self.engine.dispose)  # else drivers warn of connections left open

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
        if template_trial is None or any(self._checked.get(n) != d for n, d in known.items()):
            made = super()._get_prepared_new_trial(study_id, template_trial, session)
            self._checked |= known
            return made
        rest = copy.copy(template_trial)
        rest.params, rest.distributions = {}, {}
        trial = super()._get_prepared_new_trial(study_id, rest, session)
        rows = [
            {
                "trial_id": trial.trial_id,
                "param_name": name,
                "param_value": known[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(known[name]),
            }
            for name, value in template_trial.params.items()
        ]
        if rows:
            session.execute(insert(PARAMS), rows)
        return trial

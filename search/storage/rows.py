"""Optuna's tables, read and written row by row without its objects for each row.

Of a study with 64 knobs and 10,000 trials that are 640,000 objects, and as many distributions.
"""

from __future__ import annotations

import copy
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import (
    Column,
    DateTime,
    Enum,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    column,
    func,
    insert,
    select,
    table,
    update,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, TableClause
    from sqlalchemy.orm import Session

# as Optuna's storages have them since schema version 12
TRIALS = Table(
    "trials",
    MetaData(),
    *(Column("trial_id", Integer, primary_key=True), Column("study_id", Integer)),
    Column("number", Integer),
    Column("state", Enum(*TrialState.__members__, name="trialstate")),
    *(Column("datetime_start", DateTime), Column("datetime_complete", DateTime)),
)
PARAMS = table(
    "trial_params",
    *(column("param_id", Integer), column("trial_id", Integer), column("param_name", String)),
    *(column("param_value", Float), column("distribution_json", String)),
)
VALUES = table(
    "trial_values",
    *(column("trial_id", Integer), column("objective", Integer), column("value", Float)),
    column("value_type", Enum("FINITE", "INF_POS", "INF_NEG", name="trialvaluetype")),
)
USER, SYSTEM = (
    table(name, column("trial_id", Integer), column("key", String), column("value_json", String))
    for name in ("trial_user_attributes", "trial_system_attributes")
)
STEPS = table("trial_intermediate_values", column("trial_id", Integer))
INFINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf}
_distribution = lru_cache(maxsize=4096)(json_to_distribution)  # nobody changes one


class Settled(FrozenTrial):
    """A trial that nobody changes any more; what Optuna makes of it as a copy shares its values."""

    def __deepcopy__(self, _: object) -> Settled:
        return copy.copy(self)


def count(connection: Connection, study_id: int) -> int:
    """Return how many trials a study has."""
    found = select(func.count()).select_from(TRIALS).where(TRIALS.c.study_id == study_id)
    return int(connection.execute(found).scalar_one())


class Added(NamedTuple):
    """What a trial got from the database."""

    trial_id: int
    number: int
    datetime_start: datetime | None


def add(session: Session, study_id: int, trial: FrozenTrial) -> Added:
    """Insert a trial without intermediate values; what began the transaction has locked the study.

    Its number is counted once it is there: from then on no other process inserts one.
    """
    moments = {
        "datetime_start": _utc(trial.datetime_start),
        "datetime_complete": _utc(trial.datetime_complete),
    }
    row = {"study_id": study_id, "state": trial.state.name, **moments}
    made = cast("CursorResult[Any]", session.execute(insert(TRIALS).values(row)))
    assert made.inserted_primary_key is not None
    trial_id = int(made.inserted_primary_key[0])
    earlier = (TRIALS.c.study_id == study_id) & (TRIALS.c.trial_id < trial_id)
    number = int(session.execute(select(func.count()).where(earlier)).scalar_one())
    here = TRIALS.c.trial_id == trial_id
    session.execute(update(TRIALS).where(here).values(number=number))
    for where, rows in _rows(trial).items():
        if rows:
            session.execute(insert(where), [{"trial_id": trial_id, **row} for row in rows])
    return Added(trial_id, number, trial.datetime_start)


def _rows(trial: FrozenTrial) -> dict[TableClause, list[dict[str, Any]]]:
    kinds = {value: kind for kind, value in INFINITE.items()}
    known = trial.distributions
    return {
        PARAMS: [
            {
                "param_name": name,
                "param_value": known[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(known[name]),
            }
            for name, value in trial.params.items()
        ],
        VALUES: [
            {
                "objective": i,
                "value": None if value in kinds else value,
                "value_type": kinds.get(value, "FINITE"),
            }
            for i, value in enumerate(trial.values or ())
        ],
        USER: _texts(trial.user_attrs),
        SYSTEM: _texts(trial.system_attrs),
    }


def _texts(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]


def read(connection: Connection, study_id: int, after: int) -> list[FrozenTrial] | None:
    """Return a study's trials after an id, by their ids; None where Optuna must read them.

    Which is the case where some have intermediate values, of which mergetune stores none.
    """
    here = (TRIALS.c.study_id == study_id) & (TRIALS.c.trial_id > after)

    def of(where: TableClause, *order: str) -> dict[int, list[Any]]:
        rows = select(where).join_from(where, TRIALS, where.c.trial_id == TRIALS.c.trial_id)
        found: dict[int, list[Any]] = defaultdict(list)
        for row in connection.execute(rows.where(here).order_by(*(where.c[x] for x in order))):
            found[row.trial_id].append(row)
        return found

    if of(STEPS):
        return None
    trials = connection.execute(select(TRIALS).where(here).order_by(TRIALS.c.trial_id)).all()
    params, values = of(PARAMS, "param_id"), of(VALUES, "objective")
    user, system = of(USER), of(SYSTEM)
    return [
        FrozenTrial(
            number=row.number,
            state=TrialState[row.state],
            value=None,
            values=[_value(x) for x in values[row.trial_id]] or None,
            datetime_start=_local(row.datetime_start),
            datetime_complete=_local(row.datetime_complete),
            **_params(params[row.trial_id]),
            user_attrs=_attributes(user[row.trial_id]),
            system_attrs=_attributes(system[row.trial_id]),
            intermediate_values={},
            trial_id=row.trial_id,
        )
        for row in trials
    ]


def _value(row: Any) -> float:
    return float(INFINITE.get(row.value_type, row.value))


def _params(rows: Sequence[Any]) -> dict[str, Any]:
    known: dict[str, BaseDistribution] = {
        row.param_name: _distribution(row.distribution_json) for row in rows
    }
    values = {x.param_name: known[x.param_name].to_external_repr(x.param_value) for x in rows}
    return {"params": values, "distributions": known}


def _attributes(rows: Iterable[Any]) -> dict[str, Any]:
    return {row.key: json.loads(row.value_json) for row in rows}


def _local(found: datetime | None) -> datetime | None:
    """Return a moment of the database, which has UTC, as Optuna gives it: local, without a zone."""
    if found is None:
        return None
    return found.replace(tzinfo=timezone.utc).astimezone().replace(tzinfo=None)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(timezone.utc).replace(tzinfo=None)

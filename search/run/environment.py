"""One entry a run in the record: when, where, in which environment; another one stops a run."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from search.spec.changes import ChangedStudyError
from search.storage.study_record import Record
from search.trial.environment import (
    ASKED,
    ENGINE,
    TOLD,
    Differing,
    Environment,
    before_runs,
    differences,
)

ACCEPT = "--accept-environment"


@dataclass(frozen=True)
class Entered:
    """What a run finds of the environments that a study ran in.

    Args:
        run: Its entry in the record.
        engine: Facts of the live engine that its scores must have; empty: those of the first.
        notices: What differs from the last run, in sentences.
    """

    run: Mapping[str, Any]
    engine: Mapping[str, Any]
    notices: Sequence[str]


def entered(record: Record, now: Environment, *, accept: bool, workers: int) -> Entered:
    """Compare a run's environment with those of the study's earlier runs.

    One in which the study has run before, maybe since it was accepted, needs no new word.

    Args:
        record: The study's; nothing is written.
        now: This run's environment.
        accept: Go on in another one.
        workers: Candidates in flight.

    Raises:
        ChangedStudyError: It is another one, and that may change scores or draws.
    """
    known, host = list(_environments(record)), socket.gethostname()
    found = differences(known[-1], now) if known else []
    same = [was for was in known if not _stopping(differences(was, now))]
    if known and not same and not accept:
        raise ChangedStudyError(
            f"study {record.name!r} in {record.url} ran in another environment: "
            f"{'; '.join(map(str, _stopping(found)))}. Scores of both are not mixed unasked: go on "
            f"where it ran, or take what is here with {ACCEPT}"
        )
    facts = [was[ENGINE] for was in reversed(same) if was.get(ENGINE)]
    engine = {} if accept or not facts else facts[0]
    run = {
        "time": datetime.now(timezone.utc).isoformat(timespec="microseconds"),
        "host": host,
        "workers": workers,
        "trials": len(record.trials),
        "environment": {**now, **({ENGINE: engine} if engine else {})},
    }
    why = "an earlier run had it" if same else f"{ACCEPT} takes it"
    notices = [f"{one}: {_why(one, why)}" for one in found if one.key not in ASKED]
    if record.runs and record.runs[-1]["host"] != host:
        notices.append(f"the last run was on host {record.runs[-1]['host']}, this one is on {host}")
    return Entered(run, engine, notices)


def keep_engine(record: Record, seen: Mapping[str, Any]) -> list[str]:
    """Store what the live engine of this run is, with the run and where the study began with it.

    Args:
        record: The study's.
        seen: Facts of the engine, see ``Worker.engine``.

    Returns:
        What differs from earlier runs, in sentences; it was accepted, or is told only.
    """
    about = record.about or {}
    if seen.keys() - about.get(ENGINE, {}).keys():
        record.begin({**about, ENGINE: {**seen, **about.get(ENGINE, {})}})
    if not record.runs:
        return []
    run, before = record.runs[-1], list(_environments(record))[:-1]
    known = run["environment"].get(ENGINE, {})
    if not seen.keys() - known.keys():
        return []
    made = {**run["environment"], ENGINE: {**seen, **known}}
    record.keep_run({**run, "environment": made}, again=True)
    others = [was[ENGINE] for was in before if was.get(ENGINE)]
    found = differences({ENGINE: others[-1]}, {ENGINE: seen}) if others else []
    told = {one.key for one in (differences(before[-1], run["environment"]) if before else ())}
    return [f"{one}: {_why(one, f'{ACCEPT} takes it')}" for one in found if one.key not in told]


def _environments(record: Record) -> Iterator[Environment]:
    """Yield those that the study ran in, oldest first."""
    about, runs = record.about, record.runs
    if about is not None and (not runs or runs[0]["trials"]):
        yield before_runs(about)
    for run in runs:
        yield run["environment"]


def _stopping(found: Sequence[Differing]) -> list[Differing]:
    return [one for one in found if one.stops]


def _why(one: Differing, why: str) -> str:
    with suppress(KeyError):
        return f"{TOLD[one.key]}; it stops no run"
    return f"{why}; it may change the last bits of scores, `mergetune reproduce` tells"

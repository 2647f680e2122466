"""What a study is in the end, whatever befell it on the way; compared trial by trial."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from search.storage.locate import open_study
from search.storage.study_record import Record
from search.trial.trial import Trial

SECONDS = ("cost",)  # of a summary: what two runs may differ in


@dataclass(frozen=True)
class End:
    """All that must not depend on faults.

    Args:
        trials: By number, without seconds and lines of a traceback.
        rest: Name -> what else is stored of the study.
    """

    trials: list[dict[str, Any]]
    rest: dict[str, Any]


def end_of(study: Record | str) -> End:
    """Return what a study is by now; a name opens it anew."""
    record = study if isinstance(study, Record) else open_study(study)[1]
    numbers = [trial.number for trial in record.trials]
    assert numbers == list(range(len(numbers))), "a trial is lost or doubled"
    baselines = [t.baseline for t in record.trials if t.baseline and t.state != "failed"]
    assert len(baselines) == len({*baselines}), "a baseline is doubled"
    summary = {k: v for k, v in (record.summary or {}).items() if k not in SECONDS}
    rest = {
        "finalists": record.finalists,
        "looks": record.looks,
        "samples": record.samples,
        "summary": summary,
    }
    return End([_plain(trial) for trial in record.trials], rest)


def assert_same(study: Record | str, unbroken: End) -> None:
    """Say which trial is another one than in the unbroken study, if one is."""
    found = end_of(study)
    assert_settled(found, unbroken)
    assert len(found.trials) == len(unbroken.trials)
    assert found.rest == unbroken.rest


def assert_settled(found: End, unbroken: End) -> None:
    """Compare what is settled of a study that has not ended with the unbroken one's first trials.

    Later pools may not be scored yet; what is, is the same.
    """
    pairs = zip(found.trials, unbroken.trials, strict=False)
    for number, (ours, theirs) in enumerate(pairs):
        pools = {pool: ours["measured"][pool] for pool in ours["measured"]}
        theirs = {**theirs, "measured": {pool: theirs["measured"].get(pool) for pool in pools}}
        differ = [key for key in theirs if ours[key] != theirs[key]]
        assert not differ, f"trial {number}: {differ} differ: {ours} is not {theirs}"
    assert len(found.trials) <= len(unbroken.trials)


def _plain(trial: Trial) -> dict[str, Any]:
    timeless = {pool: replace(found, seconds={}) for pool, found in trial.measured.items()}
    kept = replace(trial, error=trial.error and trial.reason, measured=timeless)
    plain = {**asdict(kept), "recipe": trial.recipe.digest(), "params": dict(trial.params)}
    plain["measured"] = {pool: found.scores for pool, found in timeless.items()}
    return plain

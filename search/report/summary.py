"""What a study found: one frozen value, which ``summary.json`` and the terminal show."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from merge_core.errors import MergeError, join
from merge_core.json_text import finite
from search.report.select import REPORT, SELECT, Selection, drop_notice
from search.scoring.aggregate import Linear
from search.scoring.intervals import Estimate, combined
from search.space.starting_points import BASE, UNIFORM
from search.spec.study_file import StudySpec
from search.storage.study_record import Record
from search.trial.budget import End
from search.trial.tasks import Tasks
from search.trial.trial import Trial


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Scored(_Part):
    """A candidate on one pool: the study's number, and those of its groups and tasks by name."""

    mean: float
    low: float
    high: float
    groups: dict[str, Estimate] | None = None
    tasks: dict[str, Estimate]

    def of(self, entry: str) -> Estimate:
        """Return the estimate of an entry of the study's score, a group or a task."""
        return {**self.tasks, **(self.groups or {})}[entry]


class Candidate(_Part):
    """A row of the report: its name, such as ``base`` or ``winner``, its trial, its scores."""

    name: str
    trial: int
    report: Scored


class Difference(_Part):
    """The winner minus another candidate, paired; with several objectives, entry by entry too."""

    estimate: float
    low: float
    high: float
    entries: dict[str, Difference] | None = None


class SearchScore(_Part):
    """The search value, too high by design; entry -> the metric that steered it, if not its own."""

    mean: float
    steered_by: dict[str, str] | None = None


class Winner(_Part):
    """The winner, and the differences to the candidates that there are."""

    trial: int
    recipe_digest: str
    weights_digest: str
    search: SearchScore
    select: Scored
    report: Scored
    minus_best_parent: Difference | None = None
    minus_uniform: Difference | None = None
    minus_base: Difference | None = None


class Cost(_Part):
    """Items scored, items had nothing been reused nor stopped, and seconds by what they were for.

    ``items_saved``: those that stopped candidates did not see, where candidates race.
    """

    items_scored: int
    items_full: int
    items_saved: int | None = None
    seconds: dict[str, float]


class Report(_Part):
    """A finished study; its fields are the keys of ``summary.json``."""

    format: Literal[1] = 1
    study: str
    seed: int
    trials: dict[str, int]  # by how they ended
    ended: End | None = None  # why no more were searched
    pools: dict[str, int]  # number of items
    score: dict[str, Any]  # see ``Aggregate.plain``
    notices: list[str]
    candidates: list[Candidate]
    best_parent: str
    earlier_winners: list[int] | None = None  # of reports before this one, if the search went on
    winner: Winner
    cost: Cost

    @property
    def entries(self) -> list[str]:
        """Names of the entries of the study's score."""
        return [entry["name"] for entry in self.score["entries"]]

    def to_json(self) -> dict[str, Any]:
        """Return what ``summary.json`` holds; what there is none of has no key.

        Limits that are infinite are None.
        """
        found: dict[str, Any] = finite(self.model_dump(exclude_none=True))
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        """Return what ``to_json`` wrote.

        Raises:
            MergeError: It did not, or that is damaged.
        """
        try:
            return cls.model_validate(_with_limits(data))
        except ValidationError as error:
            first = error.errors()[0]
            raise MergeError(
                f"the study's summary is damaged: {reduce(join, first['loc'], '')}: "
                f"{first['msg']}; run the study again, which writes it anew"
            ) from error


def _with_limits(data: Any) -> Any:
    """Give limits that JSON could not hold their numbers again."""
    if isinstance(data, list):
        return [_with_limits(value) for value in data]
    if not isinstance(data, Mapping):
        return data
    limits = {"low": -math.inf, "high": math.inf}
    return {
        key: limits[key] if value is None and key in limits else _with_limits(value)
        for key, value in data.items()
    }


def summarize(
    record: Record, spec: StudySpec, tasks: Tasks, selection: Selection, end: End | None = None
) -> Report:
    """Return the report of a study, from the stored scores alone; ``end``: why it ended."""
    trials = {name: record.trial(number) for name, number in selection.named.items()}
    earlier = _earlier_winners(record, selection.winner)
    states = Counter(trial.state for trial in record.trials)
    return Report(
        study=record.name,
        seed=spec.search.seed,
        trials={
            "complete": states["complete"],
            "stopped": states["stopped"],
            "failed": states["failed"],
            **({"unscored": states["unscored"]} if states["unscored"] else {}),
        },
        ended=end,
        pools={name: len(pool) for name, pool in tasks.pools.items()},
        score=tasks.aggregate.plain(),
        notices=[
            *tasks.notices,
            *(drop_notice(t) for t in record.trials if t.dropped),
            *_several_reports(earlier),
        ],
        candidates=[
            Candidate(name=name, trial=t.number, report=_scored(tasks, t, REPORT))
            for name, t in trials.items()
        ],
        best_parent=selection.best_parent,
        earlier_winners=earlier or None,
        winner=_winner(tasks, trials, selection),
        cost=_cost(record.trials, tasks),
    )


def _earlier_winners(record: Record, now: int) -> list[int]:
    """Return the other trials that won when the study was finished before."""
    before = record.summary or {}
    winner, others = before.get("winner"), before.get("earlier_winners")
    found = [*others] if isinstance(others, list) else []
    found.append(winner.get("trial") if isinstance(winner, Mapping) else None)
    return [n for n in dict.fromkeys(found) if isinstance(n, int) and n != now]


def _several_reports(earlier: Sequence[int]) -> list[str]:
    trials = ", ".join(map(str, earlier))
    said = (
        f"The search went on after a report; trials that won earlier: {trials}. The report items "
        "chose no winner, but if what they showed decided when to stop, read the intervals as "
        f"those of the best of {len(earlier) + 1} reports."
    )
    return [said] if earlier else []


def _winner(tasks: Tasks, trials: Mapping[str, Trial], selection: Selection) -> Winner:
    winner = trials["winner"]
    assert winner.value is not None
    rivals = {"best_parent": selection.best_parent, "uniform": UNIFORM, "base": BASE}
    minus = {
        f"minus_{label}": _difference(tasks, winner, trials[name])
        for label, name in rivals.items()
        if name in trials
    }
    return Winner(
        trial=winner.number,
        recipe_digest=winner.recipe.digest(),
        weights_digest=winner.weights_digest,
        search=SearchScore(mean=winner.value, steered_by=tasks.aggregate.steered or None),
        select=_scored(tasks, winner, SELECT),
        report=_scored(tasks, winner, REPORT),
        **minus,
    )


def _scored(tasks: Tasks, trial: Trial, pool: str) -> Scored:
    vectors = tasks.oriented(trial.measured[pool].scores, pool)
    each = {}
    for task, evaluator in tasks.evaluators.items():
        found = combined([vectors[task]], [1.0])
        if not evaluator.higher_is_better:
            found = found.flipped()
        reported = evaluator.reported  # such as a perplexity of its logarithm
        each[task] = Estimate(reported(found.mean), reported(found.low), reported(found.high))
    groups = {}
    for entry in tasks.aggregate.entries:
        if entry.group:
            found = Linear(entry.shares).estimate(vectors)  # without regard to guessing
            lower = not tasks.evaluators[next(iter(entry.shares))].higher_is_better
            groups[entry.name] = found.flipped() if lower else found
    whole = tasks.aggregate.estimate(vectors)
    return Scored(**whole.__dict__, groups=groups or None, tasks=each)


def _difference(tasks: Tasks, winner: Trial, rival: Trial) -> Difference:
    ours, theirs = (tasks.oriented(t.measured[REPORT].scores, REPORT) for t in (winner, rival))
    entries = tasks.aggregate.entries if tasks.aggregate.objectives > 1 else ()
    each = {entry.name: _shown(entry.linear().difference(ours, theirs)) for entry in entries}
    return _shown(tasks.aggregate.difference(ours, theirs), each or None)


def _shown(x: Estimate, entries: dict[str, Difference] | None = None) -> Difference:
    return Difference(estimate=x.mean, low=x.low, high=x.high, entries=entries)


def _cost(trials: Sequence[Trial], tasks: Tasks) -> Cost:
    later = [(p, t) for p in (SELECT, REPORT) for t in trials if p in t.measured]
    fresh = {(p, t.weights_digest): t.measured[p] for p, t in later}.values()  # equal weights once
    scored = sum(t.cost for t in trials)
    whole = len(tasks.pools["search"])
    saved = [whole - t.search.items for t in trials if t.state == "stopped" and t.same_as is None]
    spent = [found.seconds for found in (*(t.search for t in trials), *fresh)]
    return Cost(
        items_scored=scored + sum(found.items for found in fresh),
        items_full=len(trials) * len(tasks.pools["search"])
        + sum(t.measured[p].items for p, t in later),
        items_saved=sum(saved) if saved else None,
        seconds={
            key: round(sum(x.get(key, 0.0) for x in spent), 3)
            for key in ("build", "model", "gradient", "other")
            if key != "gradient" or any(key in x for x in spent)
        },
    )

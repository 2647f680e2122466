"""What a study found, computed from its stored scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluators.protocol import Evaluator
from search.report import looks as looked
from search.report.measure import REPORT, SELECT, drop_notice
from search.report.race_replay import replayed
from search.report.select import Selection
from search.report.sentences import Rival, sentences, verdict
from search.report.summary import (
    Candidate,
    Cost,
    Difference,
    Finalist,
    Limits,
    Looks,
    Race,
    Report,
    Scored,
    SearchScore,
    Winner,
)
from search.scoring.aggregate import LEVEL, Aggregate, Linear, Vectors
from search.scoring.intervals import Estimate, combined
from search.space.starting_points import BASE, UNIFORM
from search.spec.study_file import StudySpec
from search.storage.kept import Look
from search.storage.study_record import Record
from search.trial.budget import End
from search.trial.racing import track_of
from search.trial.tasks import SEARCH, Tasks
from search.trial.trial import Trial


def summarize(
    record: Record, spec: StudySpec, tasks: Tasks, selection: Selection, end: End | None = None
) -> Report:
    """Return the report of a study, from the stored scores alone; ``end``: why it ended."""
    trials = {name: record.trial(number) for name, number in selection.named.items()}
    items = len(tasks.pools[REPORT])
    seen = looked.looks_of(record, selection.winner, items)
    states = Counter(trial.state for trial in record.trials)
    winner = _winner(tasks, trials, selection, len(seen))
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
        units={task: _unit(evaluator) for task, evaluator in tasks.evaluators.items()},
        notices=[*tasks.notices, *(drop_notice(t) for t in record.trials if t.dropped)],
        sentences=sentences(_rivals(winner, trials, selection), items, len(seen)),
        candidates=[
            Candidate(name=name, trial=t.number, report=_scored(tasks, t, REPORT))
            for name, t in trials.items()
        ],
        best_parent=selection.best_parent,
        best_simple=selection.best_simple,
        earlier_winners=_earlier(seen) or None,
        looks=Looks(count=len(seen), why=looked.said(seen, items)) if len(seen) > 1 else None,
        winner=winner,
        finalists=[
            _finalist(tasks, record.trial(number), shrunken)
            for number, shrunken in selection.shrunken.items()
        ],
        race=_race(record, spec, tasks),
        cost=_cost(record, tasks),
    )


def _race(record: Record, spec: StudySpec, tasks: Tasks) -> Race | None:
    track = track_of(spec, tasks, record.about)
    if track is None:
        return None
    whole = len(tasks.pools[SEARCH])
    stopped = [t for t in record.trials if t.state == "stopped" and t.same_as is None]
    return Race(
        margin=track.margin,
        error=track.error,
        items_saved=sum(whole - trial.search.items for trial in stopped),
        again=replayed(tasks, track, record.trials),
    )


def _unit(evaluator: Evaluator) -> str:
    """Return what the numbers of a task are, and which way is better."""
    return f"{evaluator.unit}, {'higher' if evaluator.higher_is_better else 'lower'} is better"


def _earlier(seen: Sequence[Look]) -> list[int]:
    """Return this study's own winners of before."""
    return [look.trial for look in seen[:-1] if not look.study]


def _winner(tasks: Tasks, trials: Mapping[str, Trial], selection: Selection, looks: int) -> Winner:
    winner = trials["winner"]
    assert winner.value is not None
    rivals: dict[str, str | None] = {
        "best_parent": selection.best_parent,
        "best_simple": selection.best_simple,
        "uniform": UNIFORM,
        "base": BASE,
    }
    minus = {
        f"minus_{label}": _difference(tasks, winner, trials[name], looks)
        for label, name in rivals.items()
        if name is not None and name in trials
    }
    report = _scored(tasks, winner, REPORT)
    if looks > 1:
        whole = tasks.aggregate.estimate(_vectors(tasks, winner, REPORT), 1 - (1 - LEVEL) / looks)
        report = report.model_copy(update={"widened": Limits(low=whole.low, high=whole.high)})
    return Winner(
        trial=winner.number,
        recipe_digest=winner.recipe.digest(),
        weights_digest=winner.weights_digest,
        search=SearchScore(mean=winner.value, steered_by=tasks.aggregate.steered or None),
        select=_scored(tasks, winner, SELECT),
        report=report,
        **minus,
    )


def _rivals(winner: Winner, trials: Mapping[str, Trial], selection: Selection) -> list[Rival]:
    """Return what a user would have without a search."""
    roles = [
        ("the best parent", selection.best_parent, winner.minus_best_parent),
        ("the best simple merge", selection.best_simple, winner.minus_best_simple),
    ]
    if selection.best_simple != UNIFORM:
        roles.append(("the uniform merge", UNIFORM, winner.minus_uniform))
    return [
        Rival(role, name, minus, trials[name].weights_digest == winner.weights_digest)
        for role, name, minus in roles
        if name is not None and minus is not None
    ]


def _vectors(tasks: Tasks, trial: Trial, pool: str) -> Vectors:
    return tasks.oriented(trial.measured[pool].scores, pool)


def _finalist(tasks: Tasks, trial: Trial, shrunken: float) -> Finalist:
    assert trial.value is not None
    steered = tasks.aggregate.steered or None
    found = trial.measured.get(REPORT)
    report = None if found is None or found.error else _scored(tasks, trial, REPORT)
    return Finalist(
        trial=trial.number,
        search=SearchScore(mean=trial.value, stderr=trial.stderr, steered_by=steered),
        select=_scored(tasks, trial, SELECT),
        shrunken=shrunken,
        report=report,
        optimism=None if report is None or steered else trial.value - report.mean,
    )


def _scored(tasks: Tasks, trial: Trial, pool: str) -> Scored:
    vectors = _vectors(tasks, trial, pool)
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
    whole, items = tasks.aggregate.estimate(vectors), trial.measured[pool].items
    part = items if items < len(tasks.pools[pool]) else None
    return Scored(**whole.__dict__, groups=groups or None, tasks=each, items=part)


@dataclass(frozen=True)
class _Pair:
    """The report scores of two candidates, and how many looks there were at them."""

    ours: Vectors
    theirs: Vectors
    looks: int

    def difference(self, aggregate: Aggregate | Linear) -> Difference:
        """Return the winner minus the other by this number, and what that shows."""
        level = 1 - (1 - LEVEL) / self.looks
        found = aggregate.difference(self.ours, self.theirs)
        shown = aggregate.difference(self.ours, self.theirs, level)
        return Difference(
            estimate=found.mean,
            low=found.low,
            high=found.high,
            verdict=verdict(shown),
            widened=Limits(low=shown.low, high=shown.high) if self.looks > 1 else None,
        )

    def needed(self, aggregate: Aggregate) -> int | None:
        """Return how many items would show the difference seen."""
        level = 1 - (1 - LEVEL) / self.looks
        return aggregate.items_to_show(self.ours, self.theirs, level)


def _difference(tasks: Tasks, winner: Trial, rival: Trial, looks: int) -> Difference:
    pair = _Pair(_vectors(tasks, winner, REPORT), _vectors(tasks, rival, REPORT), looks)
    entries = tasks.aggregate.entries if tasks.aggregate.objectives > 1 else ()
    each = {entry.name: pair.difference(entry.linear()) for entry in entries}
    found = pair.difference(tasks.aggregate)
    needed = None if found.verdict != "no difference shown" else pair.needed(tasks.aggregate)
    return found.model_copy(update={"entries": each or None, "items_needed": needed})


def _cost(record: Record, tasks: Tasks) -> Cost:
    trials, last = record.trials, record.runs[-1] if record.runs else {}
    later = [(p, t) for p in (SELECT, REPORT) for t in trials if p in t.measured]
    fresh = {(p, t.weights_digest): t.measured[p] for p, t in later}.values()  # equal weights once
    scored = sum(t.cost for t in trials)
    whole = len(tasks.pools[SEARCH])
    spent = [found.seconds for found in (*(t.search for t in trials), *fresh)]
    return Cost(
        items_scored=scored + sum(found.items for found in fresh),
        items_full=len(trials) * whole + sum(t.measured[p].items for p, t in later),
        seconds={
            key: round(sum(x.get(key, 0.0) for x in spent), 3)
            for key in ("build", "model", "gradient", "other")
            if key != "gradient" or any(key in x for x in spent)
        },
        workers=last["workers"] if last.get("busy") is not None else None,
        busy=last.get("busy"),
    )

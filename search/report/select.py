"""After the search: finalists on the select pool, the winner on the report pool. Nothing is chosen
on items that the report uses.

The best search score is too high by design (the luckiest of many), so the finalists are frozen and
scored on fresh items; the winner of that is too high again, if less, so it is measured once more on
items that chose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merge_core.errors import MergeError
from search.scoring import intervals
from search.scoring.intervals import Estimate
from search.scoring.pareto import front, thinned
from search.space.starting_points import BASE, DEFAULTS, PARENT, SIMPLE, UNIFORM
from search.spec.study_file import StudySpec
from search.storage.study_record import Record, Scores, Settled
from search.trial.progress import Progress
from search.trial.tasks import Tasks
from search.trial.worker import Job, Worker

SELECT, REPORT = "select", "report"
FRONT = "front:"  # name in the report of a finalist that nobody beats in every objective


@dataclass(frozen=True)
class Selection:
    """Who was chosen, and the trials that the report is about.

    Args:
        winner: The finalist with the best select score; with several objectives, the best mean.
        named: Name in the report -> trial; the winner last.
        best_parent: Name of the parent with the best select score.
    """

    winner: Settled
    named: Mapping[str, Settled]
    best_parent: str


def select(record: Record, worker: Worker, progress: Progress) -> Selection:
    """Score finalists and baselines on the select pool and choose.

    Raises:
        MergeError: No trial is complete, or a candidate can no longer be built as it was.
    """
    tasks = worker.tasks
    done = [trial for trial in record.trials if trial.state == "complete"]
    finalists = _finalists(done, worker.spec.search.finalists)
    named = {t.baseline: t for t in done if t.baseline is not None}
    wanted = {t.number: t for t in [*finalists, *named.values()]}
    measure(record, worker, SELECT, list(wanted.values()), progress)
    scores = _scores(record, SELECT)
    value = {n: tasks.value(found, SELECT)[0] for n, found in scores.items()}
    winner = max(finalists, key=lambda t: (value[t.number], -t.number))
    parents = [name for name in named if name.startswith(PARENT)]
    simple = [name for name in named if name.startswith(SIMPLE) or name == DEFAULTS]
    chosen = {name: t for name, t in named.items() if name not in simple}
    if simple:
        best = max(simple, key=lambda name: value[named[name].number])
        chosen[best] = named[best]
    if not parents:
        raise MergeError("every parent failed as a candidate; there is nothing to compare with")
    values = {t.number: tasks.values(scores[t.number], SELECT) for t in finalists}
    if any(values.values()):  # the others that nobody beats in every objective
        others = [record.trial(n) for n in front(values) if n != winner.number]
        chosen |= {f"{FRONT}{t.number}": t for t in others}
    return Selection(
        winner,
        {**chosen, "winner": winner},
        max(parents, key=lambda name: value[named[name].number]),
    )


def measure(
    record: Record, worker: Worker, pool: str, trials: list[Settled], progress: Progress
) -> None:
    """Score trials on a pool, as far as that is not stored yet; one commit for each.

    Raises:
        MergeError: A rebuilt candidate does not have the weights that its trial had.
    """
    stored = record.measured(pool)
    weights = {t.weights_digest: stored[t.number] for t in record.trials if t.number in stored}
    todo = [trial for trial in trials if trial.number not in stored]
    for i, trial in enumerate(todo):
        progress.stage(f"{pool} pool: candidate {i + 1} of {len(todo)}")
        if trial.weights_digest not in weights:
            weights[trial.weights_digest] = _measured(worker, pool, trial)
        record.add_measured(pool, trial.number, weights[trial.weights_digest])


def _measured(worker: Worker, pool: str, trial: Settled) -> dict[str, Any]:
    result = worker.run(Job(trial.recipe, pool, expected=trial.weights_digest))
    digest = result.weights_digest
    if digest not in ("", trial.weights_digest):
        raise MergeError(
            f"trial {trial.number} was built again with other weights ({digest}, was "
            f"{trial.weights_digest}); `mergetune reproduce` tells which parent changed"
        )
    if result.failure is not None:
        raise MergeError(f"trial {trial.number} on the {pool} pool: {result.failure.text}")
    return {"scores": result.scores, "seconds": result.seconds}


def _finalists(done: list[Settled], count: int) -> list[Settled]:
    """Return the trials with the best search scores, of equal weights the first only.

    With several objectives: those of the front, if need be thinned.
    """
    if not done:
        raise MergeError("no trial is complete, so there is no winner; see `mergetune trials`")
    first = {trial.weights_digest: trial for trial in reversed(done)}
    if done[0].values:
        trials = {t.number: t for t in sorted(first.values(), key=lambda t: t.number)}
        best = front({n: t.values for n, t in trials.items()})
        overall = {n: trials[n].value or 0.0 for n in best}
        return [trials[n] for n in thinned({n: trials[n].values for n in best}, overall, count)]
    ranked = sorted(first.values(), key=lambda t: (-(t.value or 0.0), t.number))
    return ranked[:count]


def _scores(record: Record, pool: str) -> dict[int, Scores]:
    return {number: found["scores"] for number, found in record.measured(pool).items()}


def summary(record: Record, spec: StudySpec, tasks: Tasks, selection: Selection) -> dict[str, Any]:
    """Return what ``summary.json`` holds, from the stored scores alone."""
    report, chosen = _scores(record, REPORT), _scores(record, SELECT)
    winner, steered = selection.winner, tasks.aggregate.steered
    return {
        "format": 1,
        "study": record.name,
        "seed": spec.search.seed,
        "trials": _counts(record.trials),
        "pools": {name: len(tasks.pool(name)) for name in ("search", SELECT, REPORT)},
        "score": tasks.aggregate.plain(),
        "notices": tasks.notices,
        "candidates": [
            {"name": name, "trial": t.number, "report": _estimates(tasks, report[t.number], REPORT)}
            for name, t in selection.named.items()
        ],
        "best_parent": selection.best_parent,
        "winner": {
            "trial": winner.number,
            "recipe_digest": winner.recipe.digest(),
            "weights_digest": winner.weights_digest,
            "search": {"mean": winner.value, **({"steered_by": steered} if steered else {})},
            "select": _estimates(tasks, chosen[winner.number], SELECT),
            "report": _estimates(tasks, report[winner.number], REPORT),
            **_differences(tasks, selection, report),
        },
        "cost": _cost(record, tasks),
    }


def _counts(trials: list[Settled]) -> dict[str, int]:
    complete = sum(trial.state == "complete" for trial in trials)
    return {"complete": complete, "stopped": 0, "failed": len(trials) - complete}


def _estimates(tasks: Tasks, scores: Scores, pool: str) -> dict[str, Any]:
    vectors = tasks.oriented(scores, pool)
    each = {}
    for task, evaluator in tasks.evaluators.items():
        found = intervals.mean_interval(vectors[task])
        if not evaluator.higher_is_better:
            found = found.flipped()
        each[task] = {name: evaluator.reported(x) for name, x in found.__dict__.items()}
    groups = {}
    for entry in tasks.aggregate.entries:
        if entry.group:
            found = entry.plain_estimate(vectors)
            lower = not tasks.evaluators[next(iter(entry.shares))].higher_is_better
            groups[entry.name] = (found.flipped() if lower else found).__dict__
    whole = tasks.aggregate.estimate(vectors).__dict__
    return {**whole, **({"groups": groups} if groups else {}), "tasks": each}


def _differences(
    tasks: Tasks, selection: Selection, report: Mapping[int, Scores]
) -> dict[str, Any]:
    rivals = {"best_parent": selection.best_parent, "uniform": UNIFORM, "base": BASE}
    found: dict[str, Any] = {}
    for label, name in rivals.items():
        if name not in selection.named:
            continue
        ours = tasks.oriented(report[selection.winner.number], REPORT)
        theirs = tasks.oriented(report[selection.named[name].number], REPORT)
        difference = tasks.aggregate.difference(ours, theirs)
        found[f"minus_{label}"] = _difference(difference)
        if tasks.aggregate.objectives > 1:
            found[f"minus_{label}"]["entries"] = {
                entry.name: _difference(entry.difference(ours, theirs))
                for entry in tasks.aggregate.entries
            }
    return found


def _difference(found: Estimate) -> dict[str, Any]:
    return {"estimate": found.mean, "low": found.low, "high": found.high}


def _cost(record: Record, tasks: Tasks) -> dict[str, Any]:
    digest = {trial.number: trial.weights_digest for trial in record.trials}
    measured = [(pool, n, f) for pool in (SELECT, REPORT) for n, f in record.measured(pool).items()]
    fresh = {(pool, digest[n]): found for pool, n, found in measured}.values()  # equal weights once
    scored = sum(t.items for t in record.trials if t.same_as is None)
    seconds = {"build": 0.0, "model": 0.0, "other": 0.0}
    for spent in (*(t.seconds for t in record.trials), *(found["seconds"] for found in fresh)):
        for key, value in spent.items():
            seconds[key] += value
    return {
        "items_scored": scored + sum(_items(found) for found in fresh),
        "items_full": len(record.trials) * len(tasks.pools.search)
        + sum(_items(found) for _, _, found in measured),
        "seconds": {key: round(value, 3) for key, value in seconds.items()},
    }


def _items(found: Mapping[str, Any]) -> int:
    return sum(len(scores) for scores in found["scores"].values())

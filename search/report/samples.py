"""Sample answers: items that the winner does better than the best parent, and the other way round.

A mean says little of a model that writes gibberish. So after the report pool both are built once
more and asked some of its items, and what they said is stored with the study. No score changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from evaluators.answer import Answer
from merge_core.errors import MergeError
from search.report import ask
from search.report.measure import REPORT
from search.report.select import Selection
from search.storage.said import Samples, end, start
from search.storage.study_record import Record
from search.trial.progress import Progress, StopRequested
from search.trial.tasks import Tasks
from search.trial.trial import Trial
from search.trial.worker import Bench

KEPT = 3  # items of a task, better ones and worse ones each

Places: TypeAlias = Mapping[str, Mapping[str, tuple[int, ...]]]  # task -> direction -> of the pool


def keep_samples(
    record: Record, bench: Bench, chosen: Selection, progress: Progress, stop: Callable[[], bool]
) -> None:
    """Store sample answers of the winner and the best parent, if that is not done yet.

    Where they cannot be made a notice says why and the next run tries again: a report is not lost
    for them.

    Raises:
        StopRequested: ``stop`` said so, before a candidate was built.
    """
    winner, parent = (record.trial(chosen.named[name]) for name in ("winner", chosen.best_parent))
    pair = (winner.number, parent.number)
    if record.said.has_samples(*pair):
        return
    places = differing(bench.tasks, winner, parent)
    asks = {task: tuple(i for some in x.values() for i in some) for task, x in places.items()}
    said: list[Mapping[str, Sequence[Answer]]] = []
    for trial in (winner, parent):
        if not asks:
            break
        if stop():
            raise StopRequested
        progress.phase("samples")
        progress.stage(f"sample answers: candidate {len(said) + 1} of 2")
        try:
            said.append(_said(bench, trial, asks))
        except MergeError as error:
            progress.notice(f"no sample answers are kept: {error}; another run tries again")
            return
        asks = {task: x for task, x in asks.items() if task in said[-1]}  # some have no answers
    record.said.keep_samples(*pair, _paired(bench.tasks, places, *said) if asks else {})


def differing(tasks: Tasks, winner: Trial, parent: Trial) -> Places:
    """Return places of report items where the two score otherwise, largest differences first.

    Equal differences (as all are of right or wrong) are in the pool's order, which is random, so
    those that are taken are a random sample of them.
    """
    found = {}
    for task, evaluator in tasks.evaluators.items():
        ours, theirs = (t.measured[REPORT].scores[task] for t in (winner, parent))
        sign = 1 if evaluator.higher_is_better else -1
        gains = [sign * (a - b) for a, b in zip(ours, theirs, strict=True)]
        both = {"gained": _largest(gains), "lost": _largest([-x for x in gains])}
        if any(both.values()):
            found[task] = both
    return found


def _largest(gains: Sequence[float]) -> tuple[int, ...]:
    better = [i for i, gain in enumerate(gains) if gain > 0]
    return tuple(sorted(better, key=lambda i: -gains[i])[:KEPT])


def _said(
    bench: Bench, trial: Trial, asks: Mapping[str, tuple[int, ...]]
) -> Mapping[str, Sequence[Answer]]:
    """Build a trial again and ask it.

    Raises:
        MergeError: See ``ask``, or its engine is another one.
    """
    result = ask.ask(bench, trial, REPORT, asks)
    bench.check_engine(result)
    return ask.said(result)


def _paired(
    tasks: Tasks,
    places: Places,
    winner: Mapping[str, Sequence[Answer]],
    parent: Mapping[str, Sequence[Answer]],
) -> Samples:
    """Return both candidates' answers beside each other, cut to what is stored."""
    found: Samples = {}
    for task, theirs in parent.items():
        evaluator, which = tasks.evaluators[task], tasks.pools[REPORT].of(task)
        each = zip(winner[task], theirs, strict=True)
        found[task] = {
            way: [
                {
                    "id": evaluator.items[which[i]].id,
                    "prompt": end(ours.prompt),
                    "right": start(ours.right),
                    "winner": start(ours.said),
                    "parent": start(other.said),
                }
                for i, (ours, other) in zip(some, each, strict=False)
            ]
            for way, some in places[task].items()
        }
    return found

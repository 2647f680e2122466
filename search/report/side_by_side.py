"""What one or two trials say to items of a pool, with what is right and how each was scored.

Which items: in the pool's order, which is random, so the first ones are a random sample. Answers
that the study has kept are taken from it; what it has not, a trial that is built again is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from evaluators.answer import Answer
from merge_core.errors import MergeError, UnknownNameError, hint
from search.report import ask
from search.report.keep_answers import kept_by
from search.report.measure import REPORT
from search.storage.locate import winner
from search.storage.study_record import Record
from search.trial.facts import Facts, stored_facts
from search.trial.tasks import SEARCH
from search.trial.trial import Trial
from search.trial.worker import Bench

FEW = 5  # items of a task, where nobody says how many


@dataclass(frozen=True)
class Wanted:
    """What is to be shown.

    Args:
        trials: One or two.
        pool: Whose items.
        tasks: Of which tasks or entries; none: of all.
        wrong: Whether only items that the first trial does not get right.
        most: Items of a task; None: ``FEW``.
    """

    trials: tuple[Trial, ...]
    pool: str
    tasks: tuple[str, ...] = ()
    wrong: bool = False
    most: int | None = None


@dataclass(frozen=True)
class Heard:
    """An item, and what the trials said to it.

    Args:
        id: Of the item.
        answers: Of each trial.
        scores: Of each trial, in the task's own direction; None where it was not scored.
    """

    id: str
    answers: tuple[Answer, ...]
    scores: tuple[float | None, ...]


@dataclass(frozen=True)
class OfTask:
    """What is shown of a task.

    Args:
        unit: What a score counts, in words.
        items: Of the pool.
        matching: Of these, how many are of the kind that was asked for.
        heard: Those that are shown; none of a task that has no answers to show.
        better, worse: On how many of the pool's items the first trial scores better, or worse, than
            the second one; None where there is one trial, or no scores.
    """

    unit: str
    items: int
    matching: int
    heard: tuple[Heard, ...]
    better: int | None = None
    worse: int | None = None


@dataclass(frozen=True)
class SideBySide:
    """What is shown of a study; ``winner``: the number of the trial that won, if one has."""

    study: str
    wanted: Wanted
    tasks: Mapping[str, OfTask]
    winner: int | None = None

    @property
    def names(self) -> list[str]:
        """How the trials are called, for people."""
        return [self._name(trial) for trial in self.wanted.trials]

    def _name(self, trial: Trial) -> str:
        roles = ["winner"] if trial.number == self.winner else []
        roles += [] if trial.baseline is None else [trial.baseline]
        return f"trial {trial.number}" + (f" ({', '.join(roles)})" if roles else "")

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        wanted = self.wanted
        return {
            "study": self.study,
            "pool": wanted.pool,
            "trials": [
                {"number": t.number, "baseline": t.baseline, "winner": t.number == self.winner}
                for t in wanted.trials
            ],
            "tasks": {
                task: {
                    "unit": found.unit,
                    "items": found.items,
                    "matching": found.matching,
                    **(
                        {}
                        if found.better is None
                        else {"better": found.better, "worse": found.worse}
                    ),
                    "answers": [_plain(one) for one in found.heard],
                }
                for task, found in self.tasks.items()
            },
        }


def _plain(one: Heard) -> dict[str, Any]:
    said = zip(one.answers, one.scores, strict=True)
    return {
        "id": one.id,
        "prompt": one.answers[0].prompt,
        "right": one.answers[0].right,
        "said": [{"answer": x.said, "score": score} for x, score in said],
    }


def usual_pool(trial: Trial) -> str:
    """Return the pool whose items are shown where nobody says which."""
    found = trial.measured.get(REPORT)
    return REPORT if found is not None and found.scores else SEARCH


def side_by_side(
    record: Record, wanted: Wanted, bench: Callable[[], Bench], tell: Callable[[str], None]
) -> SideBySide:
    """Return what trials say.

    Args:
        record: Of the study.
        wanted: What of it.
        bench: Opens the study, where a trial must be asked.
        tell: Is told what is built, and what may be otherwise than it was.

    Raises:
        UnknownNameError: The study has no such task.
        MergeError: A trial failed, is not scored where that is needed, or cannot be built again.
    """
    for trial in wanted.trials:
        if trial.state == "failed":
            raise MergeError(f"trial {trial.number} failed, so it says nothing: {trial.reason}")
    ids = record.item_ids(wanted.pool)
    tasks = _tasks(record, wanted.tasks, ids)
    fits = {task: _matching(record, wanted, task, len(ids[task])) for task in tasks}
    kept = [_kept(record, trial, wanted.pool) for trial in wanted.trials]
    shown = {task: _chosen(found, wanted.most, _both(kept, task)) for task, found in fits.items()}
    answers = [
        _heard(record, trial, wanted.pool, shown, known, bench, tell)
        for trial, known in zip(wanted.trials, kept, strict=True)
    ]
    return SideBySide(
        record.name,
        wanted,
        {task: _of_task(record, wanted, task, fits[task], shown[task], answers) for task in tasks},
        None if record.summary is None else winner(record)[0].number,
    )


Answers = Mapping[str, Mapping[int, Answer]]  # task -> place in the pool's order -> answer


def _of_task(
    record: Record,
    wanted: Wanted,
    task: str,
    fits: Sequence[int],
    shown: Sequence[int],
    answers: Sequence[Answers],
) -> OfTask:
    ids = record.item_ids(wanted.pool)[task]
    places = [i for i in shown if all(i in said.get(task, {}) for said in answers)]
    heard = [
        Heard(
            ids[i],
            tuple(said[task][i] for said in answers),
            tuple(_score(trial, wanted.pool, task, i) for trial in wanted.trials),
        )
        for i in places
    ]
    better, worse = _counts(record, wanted, task)
    unit = _unit(record, wanted.pool, task)
    return OfTask(unit, len(ids), len(fits), tuple(heard), better, worse)


def _counts(record: Record, wanted: Wanted, task: str) -> tuple[int | None, int | None]:
    """Return on how many items the first of two trials scores better, and worse."""
    each = [_scores(trial, wanted.pool, task) for trial in wanted.trials]
    if len(each) < 2 or not all(each) or _steered(record, wanted.pool, task):
        return None, None
    facts = stored_facts(record.about or {}, record.summary, task)
    sign = 1 if facts.higher_is_better else -1
    gains = [sign * (a - b) for a, b in zip(*each, strict=False)]
    return sum(x > 0 for x in gains), sum(x < 0 for x in gains)


def _kept(record: Record, trial: Trial, pool: str) -> Answers:
    """Return the answers of a trial that the study has kept."""
    return {task: dict(enumerate(said)) for task, said in kept_by(record, trial, pool).items()}


def _both(kept: Sequence[Answers], task: str) -> set[int]:
    """Return the places that all have kept."""
    return set.intersection(*({*answers.get(task, {})} for answers in kept))


def _chosen(found: Sequence[int], most: int | None, kept: set[int]) -> list[int]:
    """Return the first places; where nobody says how many and some are kept, no others."""
    here = [i for i in found if i in kept]
    return (here or list(found))[:FEW] if most is None else list(found)[:most]


def _tasks(record: Record, asked: Sequence[str], ids: Mapping[str, Any]) -> list[str]:
    """Return the tasks that names mean; an entry's are all of it."""
    entries = ((record.about or {}).get("score") or {}).get("entries", ())
    known = {entry["name"]: list(entry["tasks"]) for entry in entries}
    known |= {task: [task] for task in ids}
    for name in asked:
        if name not in known:
            raise UnknownNameError(
                f"study {record.name!r} has no task {name!r}; it has {', '.join(known)}"
                f"{hint(name, known)}"
            )
    return list(dict.fromkeys(task for name in asked or ids for task in known[name]))


def _score(trial: Trial, pool: str, task: str, place: int) -> float | None:
    scores = _scores(trial, pool, task)
    return scores[place] if place < len(scores) else None


def _scores(trial: Trial, pool: str, task: str) -> Sequence[float]:
    found = trial.measured.get(pool)
    return () if found is None else found.scores.get(task, ())


def _steered(record: Record, pool: str, task: str) -> bool:
    return pool == SEARCH and task in (record.about or {}).get("steering", {})


def _unit(record: Record, pool: str, task: str) -> str:
    if not _steered(record, pool, task):
        return stored_facts(record.about or {}, record.summary, task).words
    entries = (record.about or {})["score"]["entries"]
    return str(next(entry["steer"] for entry in entries if task in entry["tasks"]))


def _matching(record: Record, wanted: Wanted, task: str, items: int) -> list[int]:
    """Return the places of items that are of the kind that is wanted."""
    if not wanted.wrong:
        return list(range(items))
    trial = wanted.trials[0]
    scores = _scores(trial, wanted.pool, task)
    if not scores:
        pools = [pool for pool, found in trial.measured.items() if found.scores]
        raise MergeError(
            f"--wrong: trial {trial.number} has no scores of {task} on the {wanted.pool} pool; it "
            f"was scored on: {', '.join(pools) or 'none'}"
        )
    if _steered(record, wanted.pool, task):
        raise MergeError(
            f"--wrong: {task} is scored by another metric on the search pool "
            f"({_unit(record, wanted.pool, task)}); say --pool select or report"
        )
    return _wrong(stored_facts(record.about or {}, record.summary, task), scores)


def _wrong(facts: Facts, scores: Sequence[float]) -> list[int]:
    """Return places whose score is not the best one; where that is not known, below their mean."""
    sign = 1 if facts.higher_is_better else -1
    bounds = facts.bounds
    if bounds is None and all(0 <= x <= 1 for x in scores):  # as of studies that stored none
        bounds = [0, 1]
    best = fmean(scores) if bounds is None else bounds[sign > 0]
    return [i for i, score in enumerate(scores) if sign * (score - best) < 0]


def _heard(
    record: Record,
    trial: Trial,
    pool: str,
    shown: Mapping[str, Sequence[int]],
    known: Answers,
    bench: Callable[[], Bench],
    tell: Callable[[str], None],
) -> Answers:
    """Return a trial's answers at the places that are shown; of tasks without answers none."""
    asks = {
        task: tuple(i for i in places if i not in known.get(task, {}))
        for task, places in shown.items()
    }
    asks = {task: places for task, places in asks.items() if places}
    if not asks:
        return known
    count = sum(map(len, asks.values()))
    items = "1 item" if count == 1 else f"{count} items"
    tell(f"trial {trial.number} is built again and asked {items}")
    result = ask.ask(bench(), trial, pool, asks)
    was = (record.about or {}).get("engine", {})
    odd = [key for key in result.engine if key in was and was[key] != result.engine[key]]
    for key in odd:
        tell(
            f"{key} of the engine was {was[key]!r} when it was scored, is {result.engine[key]!r}: "
            "an answer may be another one than its score is of"
        )
    made = {
        task: dict(zip(asks[task], answers, strict=True))
        for task, answers in ask.said(result).items()
    }
    return {task: {**known.get(task, {}), **made.get(task, {})} for task in shown}

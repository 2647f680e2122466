"""Two finished studies: whose winner is better on report items that neither chose by?

Only what is stored is read. Items are told apart by their ids, which are made of their content, so
studies with other seeds, pools, models or machines have items in common. Of a task whose items the
two score otherwise (another metric, other prompts) none are compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluators.clusters import content, united
from merge_core.errors import MergeError, StorageError
from merge_core.json_text import finite
from search.report.common_tasks import Apart, apart_by
from search.report.measure import REPORT
from search.report.sentences import verdict
from search.report.summary import Difference
from search.scoring.aggregate import Aggregate, Entry, Linear
from search.scoring.intervals import Estimate, Sample, linearised
from search.scoring.pools import NAMES
from search.storage.locate import winner
from search.storage.study_record import Record
from search.trial.facts import stored_facts


@dataclass(frozen=True)
class Side:
    """One of the two.

    Args:
        name: How it is called here.
        trial: Number of its winner.
        weights_digest: Of that.
        items: Report items.
        alone: Of these, how many the other study has in no pool.
        seen: Of these, how many the other study searched, or chose its winner, by.
        looks: Winners that were measured on its report items, this one included.
    """

    name: str
    trial: int
    weights_digest: str
    items: int
    alone: int
    seen: int
    looks: int


@dataclass(frozen=True)
class TaskRow:
    """What a task's common items show; the difference is above 0 where A is better."""

    task: str
    unit: str
    items: int
    clusters: int
    a: float
    b: float
    difference: Difference


@dataclass(frozen=True)
class Comparison:
    """What two studies show of each other's winners; ``difference``: A's minus B's."""

    a: Side
    b: Side
    items: int
    clusters: int
    aggregate: str
    difference: Difference
    tasks: Sequence[TaskRow]
    apart: Mapping[str, str]
    notes: Sequence[str]
    sentences: Sequence[str]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values; limits that are infinite are None."""
        rows = [
            {**vars(row), "difference": row.difference.model_dump(exclude_none=True)}
            for row in self.tasks
        ]
        whole = self.difference.model_dump(exclude_none=True)
        made = {**vars(self), "a": asdict(self.a), "b": asdict(self.b), "tasks": rows}
        found: dict[str, Any] = finite({**made, "difference": whole})
        return found


class _Study:
    """What is read of one study."""

    def __init__(self, name: str, record: Record) -> None:
        self.name, self.record = name, record
        self.trial, self.summary = winner(record)
        assert record.about is not None
        self.about: Mapping[str, Any] = record.about
        self.ids = {pool: record.item_ids(pool) for pool in NAMES}
        scores = self.trial.measured[REPORT].scores
        self.places = {
            task: {id_: i for i, id_ in enumerate(ids[: len(scores.get(task, ()))])}
            for task, ids in self.ids[REPORT].items()
        }
        self.chosen_by = _contents(self.ids[pool] for pool in NAMES if pool != REPORT)
        self.all = self.chosen_by | _contents([self.ids[REPORT]])

    def values(self, task: str, ids: Sequence[str]) -> list[float]:
        """Return the winner's scores of some report items."""
        scores, places = self.trial.measured[REPORT].scores[task], self.places[task]
        return [scores[places[id_]] for id_ in ids]

    def labels(self, task: str, ids: Sequence[str]) -> list[Any]:
        """Return what tells which of some report items are not independent."""
        clusters = self.about.get("clusters", {})
        if task not in clusters.get("by", {}):
            return [content(id_) for id_ in ids]
        numbers = clusters[REPORT][task]
        if len(numbers) != len(self.ids[REPORT][task]):
            raise StorageError(f"study {self.name!r} is damaged: {task} has other clusters")
        return [numbers[self.places[task][id_]] for id_ in ids]


def compare(a: Record, b: Record, names: tuple[str, str]) -> Comparison:
    """Compare the winners of two finished studies, item by item.

    Args:
        a: The record of one, whose weights of tasks count.
        b: That of the other.
        names: How they are called where their own names are the same.

    Raises:
        MergeError: One is not finished, or there is no item to compare them on.
    """
    called = names if a.name == b.name else (a.name, b.name)
    ours, theirs = _Study(called[0], a), _Study(called[1], b)
    apart = apart_by(ours.about, theirs.about, [study.ids for study in (ours, theirs)])
    common = _common(ours, theirs, apart)
    sides = _side(ours, theirs), _side(theirs, ours)
    if not common:
        raise MergeError(_nothing(sides, apart))
    samples = {task: _samples(ours, theirs, task, ids) for task, ids in common.items()}
    vectors = [{task: pair[i] for task, pair in samples.items()} for i in (0, 1)]
    whole = _aggregate(ours.about["score"], common)
    found = _difference(whole, *vectors)
    items, clusters = sum(map(len, common.values())), sum(_count(x) for x, _ in samples.values())
    notes = [*apart.notes, *_notes(ours, theirs, common)]
    return Comparison(
        a=sides[0],
        b=sides[1],
        items=items,
        clusters=clusters,
        aggregate=whole.kind,
        difference=found,
        tasks=[_row(ours, task, *samples[task]) for task in common],
        apart=apart.refused,
        notes=notes,
        sentences=_sentences(sides, found, items, clusters),
    )


def _contents(pools: Any) -> frozenset[str]:
    return frozenset(content(id_) for pool in pools for ids in pool.values() for id_ in ids)


def _common(ours: _Study, theirs: _Study, apart: Apart) -> dict[str, list[str]]:
    """Return task -> ids of the report items that both have and neither chose by."""
    stale = ours.chosen_by | theirs.chosen_by
    found = {
        task: [x for x in places if x in theirs.places.get(task, ()) and content(x) not in stale]
        for task, places in ours.places.items()
        if task not in apart.refused
    }
    return {task: ids for task, ids in found.items() if ids}


def _side(study: _Study, other: _Study) -> Side:
    ids = [content(id_) for places in study.places.values() for id_ in places]
    looks = {look.weights_digest for look in study.record.looks} | {study.trial.weights_digest}
    return Side(
        name=study.name,
        trial=study.trial.number,
        weights_digest=study.trial.weights_digest,
        items=len(ids),
        alone=sum(id_ not in other.all for id_ in ids),
        seen=sum(id_ in other.chosen_by for id_ in ids),
        looks=len(looks),
    )


def _samples(ours: _Study, theirs: _Study, task: str, ids: Sequence[str]) -> tuple[Sample, Sample]:
    """Return both winners' scores of the same items, higher is better, with all known clusters."""
    facts = stored_facts(ours.about, ours.summary, task)
    said = [study.labels(task, ids) for study in (ours, theirs)]
    labels = united([content(id_) for id_ in ids], *said)
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    clusters = np.array([numbers[label] for label in labels], dtype=np.int64)
    sign = 1.0 if facts.higher_is_better else -1.0
    made = []
    for study in (ours, theirs):
        vector = np.asarray(study.values(task, ids), dtype=np.float64)
        if facts.sizes is not None:
            vector = linearised(vector, [facts.sizes[ours.places[task][id_]] for id_ in ids])
        made.append(Sample(sign * vector, clusters, facts.exact))
    return made[0], made[1]


def _count(sample: Sample) -> int:
    assert sample.clusters is not None
    return len(np.unique(sample.clusters))


def _aggregate(score: Mapping[str, Any], common: Mapping[str, Any]) -> Aggregate:
    """Return how A's tasks become one number, as far as they have items in common."""
    entries = []
    for entry in score["entries"]:
        shares = {t: x["share"] for t, x in entry["tasks"].items() if t in common}
        if shares:
            total = sum(shares.values())
            chances = {t: entry["tasks"][t]["chance"] for t in shares}
            each = {t: share / total for t, share in shares.items()}
            entries.append(Entry(entry["name"], each, chances, entry["weight"]))
    return Aggregate(score["aggregate"], entries)


def _difference(by: Aggregate | Linear, ours: Any, theirs: Any) -> Difference:
    found = by.difference(ours, theirs)
    shown = verdict(found)
    needed = None
    if isinstance(by, Aggregate) and shown == "no difference shown":
        needed = by.items_to_show(ours, theirs)
    return Difference(
        estimate=found.mean, low=found.low, high=found.high, verdict=shown, items_needed=needed
    )


def _row(study: _Study, task: str, ours: Sample, theirs: Sample) -> TaskRow:
    facts = stored_facts(study.about, study.summary, task)
    sign = 1.0 if facts.higher_is_better else -1.0
    found = _difference(Linear({task: 1.0}), {task: ours}, {task: theirs})
    a, b = (sign * float(x.values.mean()) for x in (ours, theirs))
    return TaskRow(task, facts.words, len(ours.values), _count(ours), a, b, found)


def _notes(ours: _Study, theirs: _Study, common: Mapping[str, Any]) -> list[str]:
    found = []
    weights = [_plain_score(study.about["score"], common) for study in (ours, theirs)]
    if weights[0] != weights[1]:
        found.append(
            f"{theirs.name} weighs these tasks otherwise; the weights here are those of {ours.name}"
        )
    left = sorted(t for e in ours.about["score"]["entries"] for t in e["tasks"] if t not in common)
    if left:
        found.append(
            f"{', '.join(left)} of {ours.name} had no item to compare; the rest counts as much as "
            "it does among itself"
        )
    was, now = (study.about.get("engine", {}) for study in (ours, theirs))
    other = [f"{k} {was[k]} and {now[k]}" for k in was if k in now and was[k] != now[k]]
    if other:
        found.append(f"the engines were not the same: {', '.join(other)}")
    return found


def _plain_score(score: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
    made = _aggregate(score, common)
    return made.plain()["aggregate"], [
        (entry.weight, dict(entry.shares), dict(entry.chances)) for entry in made.entries
    ]


def _sentences(sides: tuple[Side, Side], found: Difference, items: int, clusters: int) -> list[str]:
    a, b = sides
    said = [_verdict(a, b, found, items, clusters)]
    if a.weights_digest == b.weights_digest:
        said.insert(0, "Both winners have the same weights.")
    for one, other in ((a, b), (b, a)):
        said.append(
            f"Of {one.items:,} report items of {one.name}, {one.alone:,} are in no pool of "
            f"{other.name}, and {one.seen:,} steered its search or chose its winner."
        )
    for side in sides:
        if side.looks > 1:
            said.append(
                f"{side.looks} winners were measured on the report items of {side.name}; the "
                "interval does not allow for that."
            )
    return said


def _verdict(a: Side, b: Side, found: Difference, items: int, clusters: int) -> str:
    together = f" in {clusters:,} clusters" if clusters < items else ""
    of = f"paired over {items:,} report items{together} that neither study chose by"
    ahead, behind = (a, b) if found.verdict == "better" else (b, a)
    interval = Estimate(found.estimate, found.low, found.high)
    if found.verdict != "no difference shown":
        shown = interval if ahead is a else interval.flipped()
        return (
            f"The winner of {ahead.name} is better than that of {behind.name} by {shown.mean:.3f} "
            f"(95 % interval {shown.low:.3f} to {shown.high:.3f}, {of})."
        )
    limits = f"{found.low:.3f} to {found.high:.3f}"
    if not math.isfinite(found.low) or not math.isfinite(found.high):
        limits = "without limits"
    needed = found.items_needed
    more = f" About {needed:,} such items would show what was seen." if needed else ""
    return (
        f"No difference between the winners of {a.name} and {b.name} is shown: "
        f"{found.estimate:+.3f} (95 % interval {limits}, {of}).{more}"
    )


def _nothing(sides: tuple[Side, Side], apart: Apart) -> str:
    a, b = sides
    why = "".join(f"; {task}: {reason}" for task, reason in apart.refused.items())
    return (
        f"{a.name} and {b.name} have no report item to be compared on, one that both have and "
        f"neither chose by: of {a.items} of {a.name}, {b.name} lacks {a.alone} and chose by "
        f"{a.seen}; of {b.items} of {b.name}, {a.name} lacks {b.alone} and chose by {b.seen}{why}. "
        "Give both the same tasks, items and seed"
    )

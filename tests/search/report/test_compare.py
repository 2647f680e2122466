"""Two studies' winners on items that both have: which items, whose weights, what is left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from evaluators.protocol import Item
from merge_core.errors import MergeError, StorageError
from search.report.compare import Comparison, compare
from search.report.select import choose
from search.report.summarize import summarize
from search.scoring.intervals import Sample, linearised, paired_difference
from search.spec.study_file import StudySpec
from search.storage.study_record import Look, Record
from tests.search import toy

Study = Callable[..., StudySpec]
Make = Callable[..., Record]
POOLS = ("search", "select", "report")


class Other(toy.Task):
    """Scores its items in another way."""

    def fingerprint(self) -> str:
        return f"toy {self.task} 2"


class Worded(toy.Task):
    """Has a fingerprint as evaluators of ours have."""

    told: dict[str, Any]

    def fingerprint(self) -> str:
        return json.dumps(self.told)


def worded(count: int = 40, **told: Any) -> Worded:
    task = Worded("gain", count)
    usual = {"evaluator": "toy", "metric": "points", "requests": "aa", "lm_eval": "1"}
    task.told = {**usual, **told}
    return task


@pytest.fixture
def make(study: Study) -> Make:
    """Return a finished toy study, in memory."""

    def get(text: str = toy.STUDY, tasks: Any = None, **changes: Any) -> Record:
        spec = study(text, **changes)
        bench = toy.Toy(spec, tasks=tasks)
        record = toy.in_memory(spec, bench)
        chosen = choose(record, bench, toy.Listener())
        record.finish(summarize(record, spec, bench.tasks, chosen).to_json())
        return record

    return get


def compared(a: Record, b: Record) -> Comparison:
    return compare(a, b, ("a", "b"))


def ids(record: Record, task: str, *pools: str) -> list[str]:
    return [id_ for pool in pools for id_ in record.item_ids(pool)[task]]


def report_scores(record: Record, task: str) -> dict[str, float]:
    assert record.summary is not None
    scores = record.trial(record.summary["winner"]["trial"]).measured["report"].scores[task]
    return dict(zip(ids(record, task, "report"), scores, strict=True))


def alone(*tasks: str) -> str:
    """Return a study of some tasks of equal weights."""
    head, _, rest = toy.STUDY.partition("score:")
    entries = "".join(f"  - {{evaluator: lm_eval, task: {task}}}\n" for task in tasks)
    rest = rest.partition("search: {")[2]
    return f"{head}score:\n{entries}items: {{search: 10, select: 10, report: 20}}\nsearch: {{{rest}"


def test_winners_are_compared_on_the_report_items_that_neither_study_chose_by(make: Make) -> None:
    a, b = make(), make(seed=4)
    found = compared(a, b)
    pairs, weights = [], []
    for task, weight in (("gain", 1.0), ("loss", 0.5)):
        ours, theirs = report_scores(a, task), report_scores(b, task)
        common = [x for x in ours if x in theirs]
        assert 0 < len(common) < len(ours)
        sign = 1 if task == "gain" else -1
        pairs.append([sign * np.array([side[x] for x in common]) for side in (ours, theirs)])
        weights.append(weight)
    expected = paired_difference(*zip(*pairs, strict=True), weights)  # type: ignore[misc]
    shown = found.difference
    assert (shown.estimate, shown.low, shown.high) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert found.items == sum(len(ours) for ours, _ in pairs)
    chosen = {*ids(b, "gain", "search", "select"), *ids(b, "loss", "search", "select")}
    assert found.a.seen == sum(x in chosen for t in ("gain", "loss") for x in ids(a, t, "report"))
    for side in (found.a, found.b):
        assert found.items + side.alone + side.seen == side.items


def test_a_task_is_shown_in_its_own_direction_and_better_is_above_zero(make: Make) -> None:
    found = compared(make(), make(sampler="random", trials=1, seed=3))
    for row in found.tasks:
        sign = 1 if row.task == "gain" else -1
        assert row.difference.estimate == pytest.approx(sign * (row.a - row.b))
        assert row.unit == "points"


def test_the_sentence_names_who_is_better_whichever_stands_first(make: Make) -> None:
    one = make()
    two = make(toy.STUDY.replace("name: toy", "name: other"))
    assert two.summary is not None
    two.finish({**two.summary, "winner": {**two.summary["winner"], "trial": 0}})  # the base
    for a, b in ((one, two), (two, one)):
        found = compared(a, b)
        assert found.difference.verdict == ("better" if a is one else "worse")
        assert found.sentences[0].startswith("The winner of toy is better than that of other by 0.")
        assert " to 0." in found.sentences[0]


def test_a_study_and_itself_differ_by_nothing_and_that_is_said(make: Make) -> None:
    record = make()
    found = compared(record, record)
    assert found.sentences[0] == "Both winners have the same weights."
    assert "No difference between the winners of a and b is shown: +0.000" in found.sentences[1]
    assert found.items == 20


def test_weights_are_those_of_the_first_study_and_a_note_says_where_they_differ(
    make: Make,
) -> None:
    a, b = make(), make(toy.STUDY.replace("weight: 0.5", "weight: 2.0"))
    ours, theirs = compared(a, b), compared(b, a)
    assert [note for note in ours.notes if "weighs these tasks otherwise" in note]
    parts = [row.difference.estimate for row in ours.tasks]
    assert ours.difference.estimate == pytest.approx((parts[0] + 0.5 * parts[1]) / 1.5)
    assert theirs.difference.estimate == pytest.approx(-(parts[0] + 2 * parts[1]) / 3)
    assert not compared(a, a).notes


def test_a_task_that_is_scored_otherwise_is_left_out_and_said(make: Make) -> None:
    a = make()
    b = make(tasks=[Other("gain"), toy.Task("loss")])
    found = compared(a, b)
    assert [row.task for row in found.tasks] == ["loss"]
    assert "the same items are scored otherwise" in found.apart["gain"]
    assert found.difference.estimate == pytest.approx(found.tasks[0].difference.estimate)
    assert "gain of a had no item to compare" in found.notes[0]


def test_studies_without_a_common_item_are_refused_with_the_counts(make: Make) -> None:
    a, b = make(alone("gain")), make(alone("loss"))
    with pytest.raises(MergeError, match="have no report item to be compared on") as caught:
        compared(a, b)
    assert "of 20 of a, b lacks 20 and chose by 0" in str(caught.value)
    assert "gain: only the first study has it" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "count", "refused", "note"),
    [
        ({"metric": "other"}, 40, "metric differ", ""),
        ({"requests": "bb"}, 40, "requests differ", ""),
        ({"requests": "bb", "items": 41}, 41, "", "has other items besides"),
        ({"lm_eval": "2"}, 40, "", "was scored by another lm_eval"),
        ({"seed": 4}, 40, "seed differ", ""),
    ],
)
def test_what_differs_in_a_tasks_fingerprint_decides_whether_it_is_compared(
    make: Make, told: dict[str, Any], count: int, refused: str, note: str
) -> None:
    a = make(alone("gain"), [worded()])
    b = make(alone("gain"), [worded(count, **told)])
    if refused:
        with pytest.raises(MergeError, match=refused):
            compared(a, b)
    else:
        assert [x for x in compared(a, b).notes if note in x]


def test_items_are_in_one_cluster_if_either_study_says_so(make: Make) -> None:
    by_two = tuple(f"c{i // 2}" for i in range(40))
    by_four = tuple(f"c{i // 4}" for i in range(40))
    records = [
        make(alone("gain"), [toy.Task("gain", clusters=by, clustered_by="passage")])
        for by in (by_two, by_four)
    ]
    items = [Item(f"gain-{i}", "gain").id for i in range(40)]
    found = compared(*records)
    common = {*ids(records[0], "gain", "report")} & {*ids(records[1], "gain", "report")}
    assert found.clusters == len({by_four[items.index(x)] for x in common})
    assert found.clusters < found.items
    assert f"in {found.clusters} clusters" in " ".join(found.sentences)


def test_items_that_count_by_their_size_are_compared_by_their_size(make: Make) -> None:
    sizes = tuple(float(1 + i % 7) for i in range(40))
    a, b = (
        make(alone("gain"), [toy.Task("gain", sizes=sizes)], seed=seed, trials=trials)
        for seed, trials in ((3, 6), (3, 1))
    )
    places = [int(x.removeprefix("gain-")) for x in ids(a, "gain", "report")]
    counted = [sizes[i] for i in places]
    pair = [Sample(linearised([*report_scores(x, "gain").values()], counted)) for x in (a, b)]
    expected = paired_difference([pair[0]], [pair[1]], [1.0])
    found = compared(a, b).difference
    assert (found.estimate, found.low) == pytest.approx((expected.mean, expected.low))


def test_a_study_of_an_earlier_version_is_read_by_the_words_of_its_summary(make: Make) -> None:
    a, b = make(), make(seed=4)
    before = compared(a, b)
    assert a.about is not None
    a.begin({key: x for key, x in a.about.items() if key != "facts"})
    assert compared(a, b).difference == before.difference
    told = json.dumps({"metric": "word_perplexity"})
    a.begin({**a.about, "tasks": {"gain": told, "loss": told}})
    b.begin({**(b.about or {}), "tasks": {"gain": told, "loss": told}})
    with pytest.raises(MergeError, match="what each item counts was not stored"):
        compared(a, b)


def test_damaged_facts_are_an_error(make: Make) -> None:
    a = make(alone("gain"))
    a.begin({**(a.about or {}), "facts": {"gain": {"unit": 3}}})
    with pytest.raises(StorageError, match=r"facts\.gain"):
        compared(a, a)


def test_looks_of_before_are_said(make: Make) -> None:
    a = make(alone("gain"))
    a.keep_looks([Look(study="", trial=1, weights_digest="old", items=20)])
    assert "2 winners were measured on the report items of a" in " ".join(
        compared(a, make(alone("gain"), seed=4)).sentences
    )


def test_a_study_that_is_not_finished_is_refused(make: Make, study: Study) -> None:
    open_ended = toy.in_memory(study(folder="open"))
    with pytest.raises(MergeError, match="is not finished"):
        compared(make(), open_ended)


def test_the_plain_comparison_has_only_json_in_it(make: Make) -> None:
    found = json.loads(json.dumps(compared(make(), make(seed=4)).plain(), allow_nan=False))
    assert {"a", "b", "items", "clusters", "difference", "tasks", "sentences"} <= found.keys()
    assert found["tasks"][0]["difference"]["verdict"]

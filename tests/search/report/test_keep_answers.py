"""Winner, parents, base and uniform merge are asked when they are measured; it is kept, bounded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluators.answer import Answer
from search.report.keep_answers import kept_by
from search.report.select import Selection, choose
from search.report.side_by_side import Wanted, side_by_side
from search.report.who import who
from search.storage.packed import deflated
from search.storage.said import LONGEST, packed, unpacked, without
from search.storage.study_record import Record
from search.trial.progress import StopRequested
from tests.search import toy
from tests.search.report.test_samples import Bench, Speaking

KEPT = ("base", "parent:org/one", "parent:org/two", "uniform", "winner")


def bench_of(tmp_path: Path, *tasks: toy.Task, keep: int = 6) -> Bench:
    spec = toy.spec_of(f"keep_answers: {keep}\n{toy.STUDY}", tmp_path)
    return Bench(spec, tasks=tasks or [Speaking("gain"), Speaking("loss")])


def chosen(bench: Bench, stop: Any = toy.never) -> tuple[Record, Selection, toy.Listener]:
    record, heard = toy.in_memory(bench.spec, bench), toy.Listener()
    return record, choose(record, bench, heard, stop), heard


def answers(record: Record, number: int) -> dict[str, list[Answer]]:
    return record.said.answers(number, "report")


def test_they_are_asked_the_first_report_items_of_each_task_and_others_are_not(
    tmp_path: Path,
) -> None:
    bench = bench_of(tmp_path)
    record, found, _ = chosen(bench)
    numbers = {found.named[name] for name in KEPT}
    assert {t.number for t in record.trials if answers(record, t.number)} == numbers
    for number in numbers:
        for task in ("gain", "loss"):
            ids = record.item_ids("report")[task][:3]
            said = answers(record, number)[task]
            assert [x.prompt for x in said] == [f"prompt of {id_}" for id_ in ids]
            assert {x.said for x in said} == {f"by {record.trial(number).weights_digest}"}
    assert record.said.answers(found.winner, "search") == {}


def test_asking_builds_nothing_that_measuring_does_not_build(tmp_path: Path) -> None:
    built = []
    for keep in (0, 6):
        bench = bench_of(tmp_path, keep=keep)
        record, found, _ = chosen(bench)
        built.append(bench.built)
    assert built[0] == built[1]
    bench.built.clear()
    choose(record, bench, toy.Listener())
    assert bench.built == [], "it is asked once"
    assert kept_by(record, replace(record.trial(found.winner), number=99), "report") == answers(
        record, found.winner
    ), "the same weights"


def test_a_study_that_keeps_more_asks_for_what_is_missing_and_one_that_keeps_none_for_nothing(
    tmp_path: Path,
) -> None:
    bench = bench_of(tmp_path, keep=0)
    record, found, _ = chosen(bench)
    assert answers(record, found.winner) == {}
    for keep, each in ((6, 3), (8, 4), (1, 4), (1000, 10)):
        bench.spec = bench_of(tmp_path, keep=keep).spec
        choose(record, bench, toy.Listener())
        assert {len(x) for x in answers(record, found.named["base"]).values()} == {each}


def test_tasks_without_answers_are_asked_once_for_all(tmp_path: Path) -> None:
    asked = []

    class Counted(toy.Task):
        def answers(self, model: Any, which: Sequence[int]) -> list[Answer]:
            asked.append(which)
            raise self.no_answers("none")

    bench = bench_of(tmp_path, Speaking("gain"), Counted("loss"))
    record, found, heard = chosen(bench)
    assert len(asked) == 1
    assert heard.notices == []
    assert set(answers(record, found.winner)) >= {"gain"}


def test_what_fails_is_told_once_loses_no_report_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Speaking, "answers", lambda *_: (_ for _ in ()).throw(ValueError("mine")))
        record, found, heard = chosen(bench)
    (said,) = heard.notices
    assert said.startswith("no more answers are kept: trial ")
    assert "ValueError: mine; another run tries again" in said
    assert answers(record, found.winner) == {}
    with pytest.raises(StopRequested):
        choose(record, bench, toy.Listener(), lambda: True)
    choose(record, bench, toy.Listener())
    assert all(answers(record, found.named[name]) for name in KEPT)


def test_scores_are_the_same_with_answers_and_without(tmp_path: Path) -> None:
    kept = [toy.kept(chosen(bench_of(tmp_path, keep=keep))[0].trials) for keep in (0, 6)]
    assert kept[0] == kept[1]


def test_kept_answers_are_shown_without_a_model_and_asked_for_only_where_more_are_wanted(
    tmp_path: Path,
) -> None:
    bench = bench_of(tmp_path)
    record, _, _ = chosen(bench)
    told: list[str] = []
    trials = (who(record, "uniform"), who(record, "one"))

    def none() -> Bench:
        raise AssertionError("opened")

    found = side_by_side(record, Wanted(trials, "report"), none, told.append)
    assert [len(one.heard) for one in found.tasks.values()] == [3, 3]
    assert told == []
    found = side_by_side(record, Wanted(trials, "report", most=4), lambda: bench, told.append)
    assert [len(one.heard) for one in found.tasks.values()] == [4, 4]
    assert [x.rpartition(" asked ")[2] for x in told] == ["2 items", "2 items"]


def test_stored_answers_are_cut_survive_the_way_and_are_none_where_they_are_damaged() -> None:
    long = "a" * (LONGEST + 1)
    stored = packed("report", {"x": [Answer(long, "b", long)], "y": []})
    (one,) = unpacked(stored)["x"]
    assert {len(one.prompt), len(one.said)} == {LONGEST}
    assert (one.prompt[0], one.said[-1], one.right) == ("…", "…", "b")
    assert unpacked(without(stored, {"x"})) == {"y": []}
    wrong = [{"x": 3}, {"x": [[1, "b", "c"]]}, {"x": [["a"]]}, {"x": ["abc", 3]}, [1], 7]
    for plain in wrong:
        damaged = {"pool": "report", "json": deflated(json.dumps(plain).encode())}
        assert unpacked(damaged) == {}, plain
    for value in (None, 3, {}, {"json": 7}, {"json": "!"}):
        assert unpacked(value) == {}
        assert without(value, {"x"}) is None

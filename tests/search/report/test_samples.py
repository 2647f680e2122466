"""What the winner and the best parent say is kept with the study, and no report is lost for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evaluators.answer import Answer
from search.report.samples import KEPT, differing, keep_samples
from search.report.select import Selection, choose
from search.report.summarize import summarize
from search.storage.said import CUT, LONGEST, end, start
from search.storage.study_record import Record
from search.trial.progress import StopRequested
from search.trial.trial import Measurement
from tests.search import toy


class Speaking(toy.Task):
    """Says which model it is."""

    def answers(self, model: Any, which: Sequence[int]) -> list[Answer]:
        return [
            Answer(f"prompt of {self.items[i].id}", f"right {i}", f"by {model.digest}")
            for i in which
        ]


class Bench(toy.Toy):
    """Its live model is what is asked."""

    def build(self, recipe: Any) -> str:
        digest = super().build(recipe)
        self.builder.live = self.live  # type: ignore[assignment]
        return digest


def bench_of(tmp_path: Path, *tasks: toy.Task) -> Bench:
    return Bench(
        toy.spec_of(toy.STUDY, tmp_path), tasks=tasks or [Speaking("gain"), Speaking("loss")]
    )


def finished(bench: Bench) -> tuple[Record, Selection]:
    record = toy.in_memory(bench.spec, bench)
    return record, choose(record, bench, toy.Listener())


def kept(record: Record, bench: Bench, chosen: Selection, stop: Any = toy.never) -> toy.Listener:
    """Keep samples and finish the study; the number of builds is ``bench.built``'s."""
    heard = toy.Listener()
    bench.built.clear()
    bench._live = None
    keep_samples(record, bench, chosen, heard, stop)
    record.finish(summarize(record, bench.spec, bench.tasks, chosen).to_json())
    return heard


def test_both_candidates_are_asked_the_items_where_they_differ_most(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    record, chosen = finished(bench)
    heard = kept(record, bench, chosen)
    winner, parent = (record.trial(chosen.named[x]) for x in ("winner", chosen.best_parent))
    assert heard.stages == [f"sample answers: candidate {i} of 2" for i in (1, 2)]
    for task, higher in (("gain", True), ("loss", False)):
        pool = bench.tasks.pools["report"].of(task)
        ids = [bench.tasks.evaluators[task].items[i].id for i in pool]
        ours, theirs = (t.measured["report"].scores[task] for t in (winner, parent))
        gain = {
            x: (a - b) * (1 if higher else -1) for x, a, b in zip(ids, ours, theirs, strict=True)
        }
        gained = record.samples[task]["gained"]
        assert [x["id"] for x in gained] == sorted(gain, key=lambda x: -gain[x])[:KEPT]
        assert gained[0] == {
            "id": gained[0]["id"],
            "prompt": f"prompt of {gained[0]['id']}",
            "right": f"right {gained[0]['id'].rpartition('-')[2]}",
            "winner": f"by {winner.weights_digest}",
            "parent": f"by {parent.weights_digest}",
        }
        assert len(record.samples[task]["lost"]) == min(KEPT, sum(x < 0 for x in gain.values()))


def test_samples_are_made_once_for_a_pair(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    record, chosen = finished(bench)
    kept(record, bench, chosen)
    assert len(bench.built) == 2
    before = record.samples
    assert kept(record, bench, chosen).stages == []
    assert (bench.built, record.samples) == ([], before)
    base = chosen.named["base"]
    other = replace(chosen, winner=base, named={**chosen.named, "winner": base})
    keep_samples(record, bench, other, toy.Listener(), toy.never)
    assert record.samples == {}, "the summary is of another winner"


def test_right_or_wrong_is_taken_in_the_pools_order_in_both_directions() -> None:
    ours, theirs = [0, 1, 1, 0, 1, 1, 1], [1, 0, 1, 1, 0, 0, 0]
    trials = [SimpleNamespace(measured={"report": Measurement({"t": x})}) for x in (ours, theirs)]
    for higher, ways in (
        (True, {"gained": (1, 4, 5), "lost": (0, 3)}),
        (False, {"gained": (0, 3), "lost": (1, 4, 5)}),
    ):
        tasks: Any = SimpleNamespace(evaluators={"t": SimpleNamespace(higher_is_better=higher)})
        assert differing(tasks, *trials) == {"t": ways}  # type: ignore[arg-type]
    assert differing(tasks, trials[0], trials[0]) == {}  # type: ignore[arg-type]


def test_a_stop_between_the_two_keeps_nothing_and_the_next_run_makes_them(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    record, chosen = finished(bench)
    asked = iter([False, True])
    with pytest.raises(StopRequested):
        keep_samples(record, bench, chosen, toy.Listener(), lambda: next(asked))
    assert not record.said.has_samples(chosen.winner, chosen.named[chosen.best_parent])
    kept(record, bench, chosen)
    assert set(record.samples) == {"gain", "loss"}


def test_tasks_without_answers_have_no_samples_and_cost_at_most_one_build(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, Speaking("gain"), toy.Task("loss"))
    record, chosen = finished(bench)
    kept(record, bench, chosen)
    assert (set(record.samples), len(bench.built)) == ({"gain"}, 2)
    bench = bench_of(tmp_path, toy.Task("gain"), toy.Task("loss"))
    record, chosen = finished(bench)
    heard = kept(record, bench, chosen)
    assert (record.samples, len(bench.built), heard.notices) == ({}, 1, [])
    assert kept(record, bench, chosen).stages == [], "that there are none is stored, too"


@pytest.mark.parametrize("error", [ValueError("a plugin's"), MemoryError("too little")])
def test_what_fails_is_told_loses_no_report_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    bench = bench_of(tmp_path)
    record, chosen = finished(bench)
    with monkeypatch.context() as patch:
        patch.setattr(Speaking, "answers", lambda *_: (_ for _ in ()).throw(error))
        heard = kept(record, bench, chosen)
    (said,) = heard.notices
    assert said.startswith(f"no sample answers are kept: trial {chosen.winner}: ")
    assert str(error) in said
    assert record.summary is not None
    assert record.samples == {}
    kept(record, bench, chosen)
    assert set(record.samples) == {"gain", "loss"}


def test_answers_of_other_weights_or_of_another_engine_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(tmp_path)
    record, chosen = finished(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench, "build", lambda recipe: "other")
        (said,) = kept(record, bench, chosen).notices
    assert "was built again with other weights (other, was " in said
    bench._began_with = {"engine": "vllm"}
    (said,) = kept(record, bench, chosen).notices
    assert "the engine is not the one that the study has run with" in said
    assert record.samples == {}


def test_long_texts_are_cut_to_the_end_of_a_prompt_and_the_beginning_of_an_answer() -> None:
    text = "a" * LONGEST
    assert end(text) == start(text) == text
    assert end(f"b{text}") == CUT + "a" * (LONGEST - 1)
    assert start(f"{text}b") == "a" * (LONGEST - 1) + CUT


def test_scores_and_summary_are_the_same_with_samples_and_without(tmp_path: Path) -> None:
    spoken, silent = bench_of(tmp_path), bench_of(tmp_path, toy.Task("gain"), toy.Task("loss"))
    found = []
    for bench in (spoken, silent):
        record, chosen = finished(bench)
        kept(record, bench, chosen)
        found.append((toy.kept(record.trials), {**(record.summary or {}), "cost": None}))
    assert found[0] == found[1]

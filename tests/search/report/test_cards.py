"""What a model's card says of a study's result is what the report says, in the hub's form."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCardData

from search.report.cards import card_result
from search.report.markdown import words
from search.report.select import choose
from search.report.summarize import summarize
from search.report.summary import Report
from search.storage.study_record import Record
from tests.search import toy

NASTY = "a|b`c\n# *x* [y](z) <b>\x1b[31m"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Report]:
    bench = toy.Toy(toy.spec_of(toy.STUDY, tmp_path_factory.mktemp("cards"), trials=40))
    record = toy.in_memory(bench.spec, bench)
    chosen = choose(record, bench, toy.Listener())
    report = summarize(record, bench.spec, bench.tasks, chosen)
    record.finish(report.to_json())
    return record, report


def read_back(metadata: Any) -> ModelCardData:
    """Return a card's head as huggingface_hub reads it from YAML, which validates it."""
    return ModelCardData(**yaml.safe_load(yaml.safe_dump(dict(metadata))))


def test_the_winners_report_scores_and_intervals_come_back_from_the_index(found: Any) -> None:
    record, report = found
    data = read_back(card_result(record, record.trial(report.winner.trial)).metadata)
    assert data.model_name == report.study
    assert data.eval_results is not None
    for result in data.eval_results:
        expected = report.winner.report.tasks[result.dataset_name]
        assert result.metric_value == expected.mean
        limits = {"level": 0.95, "low": expected.low, "high": expected.high}
        assert result.metric_args == limits
        assert f"{expected.low:.4f} to {expected.high:.4f}" in result.metric_name
        items = record.item_ids("report")[result.dataset_name]
        assert result.dataset_args == {"items": len(items)}
    assert {x.dataset_name for x in data.eval_results} == {"gain", "loss"}


def test_the_text_has_a_row_for_each_that_it_is_compared_with(found: Any) -> None:
    record, report = found
    text = card_result(record, record.trial(report.winner.trial)).text
    assert f"Trial {report.winner.trial} of the mergetune study `toy`: the winner." in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert report.best_simple is not None
    uniform = report.best_simple == "uniform"
    labels = ["best simple merge"] if uniform else ["best simple merge", "uniform merge"]
    if ":" in report.best_simple:
        labels[0] += f", `{report.best_simple.partition(':')[2]}`"
    assert len(report.sentences) > 1
    assert all(words(sentence) in text for sentence in report.sentences)
    assert [row[0].strip("| ") for row in rows] == [
        "", "---", "this model", f"best parent, `{report.best_parent.partition(':')[2]}`",
        *labels, "base",
    ]  # fmt: skip
    assert {len(row) for row in rows} == {4}
    mean = report.winner.report
    assert rows[2][1] == f"{mean.mean:.4f} ({mean.low:.4f} to {mean.high:.4f})"
    assert "on 20 report items; nothing was chosen by them" in text


def test_a_trial_that_is_named_but_did_not_win_says_so_and_has_its_own_scores(found: Any) -> None:
    record, report = found
    base = next(c for c in report.candidates if c.name == "base")
    result = card_result(record, record.trial(base.trial))
    won = report.winner.trial
    assert f"not the winner, which is trial {won}; in the report `base`." in result.text
    assert "| winner |" in result.text
    assert words(report.sentences[0]) not in result.text, "they are about the winner"
    (index,) = result.metadata["model-index"]
    values = [metric["value"] for x in index["results"] for metric in x["metrics"]]
    assert values == [x.mean for x in base.report.tasks.values()]


def test_other_trials_have_their_search_score_with_a_warning_and_no_index(found: Any) -> None:
    record, report = found
    named = {c.trial for c in report.candidates} | {x.trial for x in report.finalists}
    other = next(t for t in record.trials if t.number not in named and t.state == "complete")
    result = card_result(record, other)
    assert result.metadata == {}
    assert f"search score is {other.value:.4f} (standard error {other.stderr:.4f})" in result.text
    assert "too optimistic" in result.text
    assert "Nothing else is known" in result.text
    early = replace(other, state="stopped")
    assert (
        f"an estimate by the first {other.search.items} search" in card_result(record, early).text
    )


def test_a_finalist_that_did_not_win_has_what_was_measured_of_it(
    found: Any, monkeypatch: Any
) -> None:
    record, report = found
    summary = report.to_json()
    named = {c.trial for c in report.candidates}
    other = next(t for t in record.trials if t.number not in named)
    summary["finalists"].append({**summary["finalists"][0], "trial": other.number})
    monkeypatch.setattr(Record, "summary", summary)
    result = card_result(record, other)
    assert result.metadata == {}
    mean = report.finalists[0].report.mean
    assert f"It was a finalist: {mean:.4f} (" in result.text
    assert "on a part of the report items" in result.text


def test_names_and_notices_of_others_are_no_markdown(found: Any, monkeypatch: Any) -> None:
    record, report = found
    summary = report.to_json()
    row = next(c for c in summary["candidates"] if c["name"] == report.best_parent)
    row["name"] = summary["best_parent"] = f"parent:{NASTY}"
    summary |= {"study": NASTY, "notices": [NASTY]}
    monkeypatch.setattr(Record, "summary", summary)
    text = card_result(record, record.trial(report.winner.trial)).text
    assert "\x1b" not in text
    assert len([line for line in text.splitlines() if line.startswith("#")]) == 0
    assert r"- a\|b\`c" in text
    row = next(line for line in text.splitlines() if line.startswith("| best parent"))
    assert row.replace(r"\|", "").count("|") == 5


def test_limits_that_are_infinite_and_a_plugins_own_fingerprint_do_no_harm(
    found: Any, monkeypatch: Any
) -> None:
    record, report = found
    summary = report.to_json()
    for c in summary["candidates"]:
        c["report"]["tasks"]["gain"] |= {"low": None, "high": None}
    loss = '{"metric": "acc", "num_fewshot": 5}'
    about = {**record.about, "tasks": {"gain": "[1]", "loss": loss}}
    monkeypatch.setattr(Record, "summary", summary)
    monkeypatch.setattr(Record, "about", about)
    data = read_back(card_result(record, record.trial(report.winner.trial)).metadata)
    gain, loss = data.eval_results or ()
    assert (gain.metric_type, gain.metric_args) == ("score", {"level": 0.95})
    assert (loss.metric_type, loss.dataset_args) == ("acc", {"items": 10, "num_few_shot": 5})
    assert math.isfinite(gain.metric_value)


def test_a_study_that_is_not_finished_has_search_scores_only(tmp_path: Path) -> None:
    bench = toy.Toy(toy.spec_of(toy.SHORT, tmp_path))
    record = toy.in_memory(bench.spec, bench)
    assert "search score" in card_result(record, record.trial(0)).text

"""The report is one value: what is stored of it comes back, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from merge_core.errors import MergeError
from merge_core.json_text import finite
from search.report.select import choose
from search.report.summarize import summarize
from search.report.summary import Report
from tests.search import toy

SCORED = {
    "mean": 0.5,
    "low": 0.25,
    "high": float("inf"),
    "groups": {"both": {"mean": 0.1 + 0.2, "low": 0.0, "high": 1.0}},
    "tasks": {
        "b": {"mean": 1.0, "low": 0.5, "high": 1.0},
        "a": {"mean": 3.0, "low": 2.5, "high": 4.0},
    },
}
PLAIN = {key: value for key, value in SCORED.items() if key != "groups"}
DIFFERENCE = {"estimate": 0.1, "low": -0.1, "high": 0.3}
SUMMARY: dict[str, Any] = {  # the keys of summary.json in their order
    "format": 1,
    "study": "toy",
    "seed": 3,
    "trials": {"complete": 9, "stopped": 0, "failed": 1},
    "pools": {"search": 20, "select": 20, "report": 20},
    "score": {"aggregate": "mean", "entries": [{"name": "both", "weight": 1.0, "tasks": {}}]},
    "notices": ["Public."],
    "sentences": ["The search paid."],
    "candidates": [
        {"name": "base", "trial": 0, "report": PLAIN},
        {"name": "winner", "trial": 7, "report": SCORED},
    ],
    "best_parent": "parent:one",
    "best_simple": "uniform",
    "looks": {"count": 2, "why": ["Trial 3 won before this one."]},
    "winner": {
        "trial": 7,
        "recipe_digest": "aa",
        "weights_digest": "bb",
        "search": {"mean": 0.75, "steered_by": {"both": "margin"}},
        "select": PLAIN,
        "report": SCORED,
        "minus_best_parent": {**DIFFERENCE, "entries": {"both": DIFFERENCE}},
        "minus_best_simple": {
            **DIFFERENCE,
            "verdict": "no difference shown",
            "items_needed": 2000,
            "widened": {"low": -0.2, "high": 0.4},
        },
        "minus_base": DIFFERENCE,
    },
    "finalists": [
        {
            "trial": 7,
            "search": {"mean": 0.75, "stderr": 0.1},
            "select": PLAIN,
            "shrunken": 0.625,
            "report": {**PLAIN, "items": 10, "widened": {"low": 0.1, "high": 0.9}},
            "optimism": 0.25,
        },
        {"trial": 3, "search": {"mean": 0.5}, "select": PLAIN, "shrunken": 0.25},
    ],
    "cost": {
        "items_scored": 100,
        "items_full": 200,
        "seconds": {"build": 1.5, "model": 2.5, "other": 0.5},
    },
}


def test_limits_that_are_infinite_are_null_in_json_and_come_back() -> None:
    report = Report.from_json(SUMMARY)
    assert report.winner.report.high == float("inf")
    data = report.to_json()
    assert data["winner"]["report"]["high"] is None
    text = json.dumps(data, allow_nan=False)
    assert Report.from_json(json.loads(text)) == report


def test_a_stored_summary_comes_back_with_its_keys_in_their_order() -> None:
    assert json.dumps(Report.from_json(SUMMARY).to_json()) == json.dumps(finite(SUMMARY))


def test_a_summary_of_before_there_were_sentences_finalists_and_looks_opens() -> None:
    new = ("sentences", "best_simple", "looks", "finalists")
    earlier = Report.from_json({key: x for key, x in SUMMARY.items() if key not in new})
    assert (earlier.sentences, earlier.finalists, earlier.looks) == ([], [], None)
    assert earlier.winner.minus_base is not None
    assert earlier.winner.minus_base.verdict is None


def test_a_report_cannot_be_changed_and_a_summary_of_another_format_is_no_report() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Report.from_json(SUMMARY).seed = 4  # type: ignore[misc]
    with pytest.raises(MergeError, match=r"summary is damaged: format: .*; run the study again"):
        Report.from_json({**SUMMARY, "format": 2})


def test_the_summary_says_what_racing_saved_and_what_it_would_have_cost() -> None:
    text = toy.STUDY.replace("race: off", "race: {margin: 0.01, error: 0.1}")
    spec = toy.spec_of(text.replace("search: 20", "search: 100"), Path("/nowhere"), trials=20)
    bench = toy.Toy(spec, tasks=[toy.Task("gain", 100, bounds=(-4.0, 1.0)), toy.Task("loss", 100)])
    record = toy.in_memory(spec, bench)
    report = summarize(record, spec, bench.tasks, choose(record, bench, toy.Listener()))
    stopped = [t for t in record.trials if t.state == "stopped"]
    assert report.race is not None
    assert report.trials["stopped"] == len(stopped) > 0
    assert report.race.items_saved == sum(100 - t.search.items for t in stopped)
    assert (report.race.margin, report.race.error) == (0.01, 0.1)
    assert report.race.again.trials == report.trials["complete"] - 1
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert report.cost.items_full - report.cost.items_scored >= report.race.items_saved

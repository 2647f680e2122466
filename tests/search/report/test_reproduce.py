"""From the record alone every trial is built and scored again; what differs is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from merge_core.errors import NonFiniteError, UnknownNameError
from merge_core.recipe.schema import Recipe
from search.report.measure import measure
from search.report.reproduce import reproduce
from search.report.select import select
from search.run.loop import search
from search.run.resume import open_for
from search.spec.study_file import StudySpec
from search.storage.open import open_record
from search.storage.study_record import Record
from search.trial import builder
from search.trial.trial import Measurement
from tests.search import toy

Study = Callable[..., StudySpec]
NOTHING: dict[str, Any] = {  # keys of a row that is not identical
    "scores": [],
    "values": {},
    "environment": [],
    "changed_parents": [],
    "changed_tasks": [],
    "changed_files": [],
    "changed_tensors": {},
}
NEAR = {key: pytest.approx(1e-12, rel=1e-3) for key in ("most", "mean")}
MOVED = {**toy.PARENTS, "org/two": (0.0, 1.25)}


@pytest.fixture
def spec(study: Study) -> StudySpec:
    return study(toy.SHORT)


@pytest.fixture
def record(spec: StudySpec) -> Record:
    """A finished study."""
    record, bench = toy.in_memory(spec), toy.Toy(spec)
    chosen = select(record, bench, toy.Listener())
    measure(record, bench, "report", chosen.named.values(), toy.Listener())
    return record


class Failing(toy.Toy):
    """Raises ``error`` when it builds a recipe of the space."""

    error: Exception = MemoryError("no luck\ntoday: none")

    def build(self, recipe: Recipe) -> str:
        if dict(recipe.parameters).get("lambda"):
            raise self.error
        return super().build(recipe)


def failed(spec: StudySpec, bench: toy.Toy) -> Record:
    record = toy.in_memory(spec, bench)
    assert [t.state for t in record.trials] == ["complete"] * 4 + ["failed"] * 5
    return record


def rows(record: Record, bench: toy.Toy, *numbers: int) -> list[dict[str, Any]]:
    return list(reproduce(record, bench, numbers or range(len(record.trials))))


def test_every_trial_of_an_unchanged_study_is_identical(record: Record, spec: StudySpec) -> None:
    assert rows(record, toy.Toy(spec)) == [
        {"number": number, "verdict": "identical"} for number in range(9)
    ]


def test_a_study_that_comes_from_the_database_alone_is_identical(spec: StudySpec) -> None:
    toy.searched(spec)
    again = open_record(spec.storage)
    assert {row["verdict"] for row in rows(again, toy.Toy(spec))} == {"identical"}


def test_every_pool_that_a_trial_was_measured_on_is_scored_again(
    record: Record, spec: StudySpec
) -> None:
    bench = toy.Toy(spec)
    rows(record, bench, 1, 8)
    assert [pool for pool, _ in bench.scored] == ["search", "select", "report", "search"]


def test_trials_are_checked_in_the_order_asked_for(record: Record, spec: StudySpec) -> None:
    assert [row["number"] for row in rows(record, toy.Toy(spec), 5, 0, 2)] == [5, 0, 2]


def test_a_changed_parent_is_named_by_the_trials_that_it_went_into(
    record: Record, spec: StudySpec
) -> None:
    found = rows(record, toy.Toy(spec, parents=MOVED))
    assert [row["verdict"] for row in found] == ["identical"] * 2 + ["weights differ"] * 7
    assert all(row["changed_parents"] == ["org/two"] for row in found[2:])
    was, now = (
        record.trials[2].weights_digest,
        toy.Toy(spec, parents=MOVED).build(record.trials[2].recipe),
    )
    assert found[2]["reason"] == f"weights digest is {now}, was {was}"
    assert found[2]["tensors"] is None, "the record has one digest for all of them"
    assert found[2]["changed_tensors"] == {"org/two": ["y"]}


def test_only_the_changed_parents_that_went_into_a_trial_are_named(
    record: Record, spec: StudySpec
) -> None:
    bench = toy.Toy(spec, parents={**MOVED, "org/one": (1.25, 0.0)})
    named = [row["changed_parents"] for row in rows(record, bench, 1, 2, 3)]
    assert named == [["org/one"], ["org/two"], ["org/one", "org/two"]]


def test_other_weights_of_the_same_parents_name_nobody(record: Record, spec: StudySpec) -> None:
    bench = toy.Toy(spec)
    bench.build = lambda recipe: "other"  # type: ignore[method-assign]
    (row,) = rows(record, bench, 6)
    assert (row["verdict"], row["changed_parents"]) == ("weights differ", [])


def test_a_candidate_that_cannot_be_built_any_more_differs_and_the_others_are_checked(
    record: Record, spec: StudySpec
) -> None:
    bench = Failing(spec, parents=MOVED)
    bench.error = NonFiniteError("a.weight: 3 entries")
    found = rows(record, bench, 5, 0)
    assert found[0] == {
        "number": 5,
        "verdict": "weights differ",
        "reason": "cannot be built any more: a.weight: 3 entries",
        **NOTHING,
        "tensors": None,
        "changed_parents": ["org/two"],
        "changed_tensors": {"org/two": ["y"]},
    }
    assert found[1] == {"number": 0, "verdict": "identical"}


def test_whatever_a_trial_raises_is_its_row_and_the_others_are_checked(
    record: Record, spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = rows(record, Failing(spec), 5, 0)
    assert found[0] == {
        "number": 5,
        "verdict": "weights differ",
        "reason": "cannot be built any more: MemoryError: no luck",
        **NOTHING,
        "tensors": None,
    }
    assert found[1] == {"number": 0, "verdict": "identical"}
    score = toy.Task.score

    def gone(self: toy.Task, model: toy.Model, which: Any) -> Any:
        if self.items[which[0]].id in record.item_ids("select")["gain"]:
            raise ConnectionError("the judge is gone")
        return score(self, model, which)

    monkeypatch.setattr(toy.Task, "score", gone)
    found = rows(record, toy.Toy(spec), 1, 8)
    assert (found[0]["verdict"], found[0]["reason"]) == (
        "scores differ",
        "the select pool cannot be scored any more: ConnectionError: the judge is gone",
    )
    assert found[1] == {"number": 8, "verdict": "identical"}


@pytest.mark.parametrize("pool", ["search", "select", "report"])
def test_one_item_that_scores_otherwise_is_told_by_task_and_pool(
    record: Record, spec: StudySpec, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, score = record.item_ids(pool)["gain"][1], toy.Task.score_one
    monkeypatch.setattr(
        toy.Task, "score_one", lambda *args: score(*args) + (1e-12 if args[2] == item else 0)
    )
    (row,) = rows(record, toy.Toy(spec), 1)
    assert row == {
        **NOTHING,
        "number": 1,
        "verdict": "scores differ",
        "reason": f"gain: 1 of 5 items of the {pool} pool score otherwise, by 1e-12 at most, "
        "1e-12 in the mean; the value there moves by +2e-13",
        "scores": [{"pool": pool, "task": "gain", "items": 5, "differ": 1, **NEAR}],
        "values": {pool: row["values"][pool]},
    }
    value = row["values"][pool]
    assert value["moved"] == value["is"] - value["was"] == pytest.approx(2e-13, rel=1e-2)


def test_all_pools_and_tasks_that_differ_are_counted(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, score = study(trials=1), toy.Task.score_one
    record = toy.in_memory(spec)
    select(record, toy.Toy(spec), toy.Listener())
    (number,) = list(toy.measured(record, "select"))[:1]
    monkeypatch.setattr(toy.Task, "score_one", lambda *args: score(*args) + 0.5)
    (row,) = rows(record, toy.Toy(spec), number)
    counted = [(x["pool"], x["task"], x["differ"], x["items"]) for x in row["scores"]]
    assert counted == [
        (pool, task, 10, 10) for pool in ("search", "select") for task in ("gain", "loss")
    ]
    # gain counts 2/3, and loss, of which less is better, 1/3
    assert {k: round(x["moved"], 9) for k, x in row["values"].items()} == {
        "search": round(0.5 / 3, 9),
        "select": round(0.5 / 3, 9),
    }


def test_scores_that_are_no_numbers_any_more_are_told_without_a_count(
    record: Record, spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = toy.Toy.score
    monkeypatch.setattr(
        toy.Toy, "score", lambda *a: {"gain": [float("nan"), *score(*a)["gain"][1:]]}
    )
    (row,) = rows(record, toy.Toy(spec), 3)
    assert row["verdict"] == "scores differ"
    assert "not all of the 5 items of the search pool have a score any more" in row["reason"]
    json.dumps(row, allow_nan=False)


def test_what_of_the_environment_differs_from_the_run_that_made_the_trial_is_told(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs with two versions of torch; scores move with a third."""
    torchs = {"now": "2.1"}
    monkeypatch.setattr(
        builder, "version", lambda name: torchs["now"] if name == "torch" else "1.0"
    )
    spec = study(toy.SHORT, trials=1)
    toy.searched(spec)
    torchs["now"], longer = "2.2", study(toy.SHORT, trials=2)
    record = open_for(longer)
    search(longer, record, toy.Toy(longer), toy.Listener(), toy.never, accept=True)
    assert {row["verdict"] for row in rows(record, toy.Toy(longer))} == {"identical"}
    torchs["now"] = "2.3"
    score = toy.Task.score_one
    monkeypatch.setattr(toy.Task, "score_one", lambda *args: score(*args) + 1e-9)
    found = rows(record, toy.Toy(longer), 0, 5, 6)
    assert [row["environment"] for row in found] == [
        [{"key": "torch", "was": was, "is": "2.3"}] for was in ("2.1", "2.1", "2.2")
    ]


@pytest.mark.parametrize(("key", "was", "now"), [("dtype", "float32", "bfloat16")])
def test_another_live_engine_is_told_beside_scores_that_differ(
    study: Study, monkeypatch: pytest.MonkeyPatch, key: str, was: Any, now: Any
) -> None:
    facts: dict[str, Any] = {"engine": "toy", key: was}
    monkeypatch.setattr(toy.Toy, "engine", property(lambda _: dict(facts)))
    spec = study(toy.SHORT)
    record = toy.in_memory(spec)
    facts[key] = now
    assert rows(record, toy.Toy(spec), 2) == [{"number": 2, "verdict": "identical"}]
    score = toy.Task.score_one
    monkeypatch.setattr(toy.Task, "score_one", lambda *args: score(*args) + 1e-9)
    (row,) = rows(record, toy.Toy(spec), 2)
    assert row["environment"] == [{"key": key, "was": was, "is": now}]


def test_a_task_that_was_edited_and_a_file_that_changed_are_named(
    record: Record, spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.Task, "fingerprint", lambda self: f"toy {self.task} 2")
    monkeypatch.setattr(toy.ToyBuilder, "behaviour", {"org/base/config.json": "ff"})
    assert rows(record, toy.Toy(spec), 2) == [{"number": 2, "verdict": "identical"}]
    score = toy.Task.score_one
    monkeypatch.setattr(toy.Task, "score_one", lambda *args: score(*args) + 1)
    (row,) = rows(record, toy.Toy(spec), 2)
    assert row["changed_tasks"] == ["gain"]
    assert row["changed_files"] == ["org/base/config.json"]


def test_a_task_with_fewer_items_does_not_pass_for_the_same(
    record: Record, spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = toy.Toy.score
    monkeypatch.setattr(toy.Toy, "score", lambda *a: {"gain": score(*a)["gain"][:4]})
    (row,) = rows(record, toy.Toy(spec), 3)
    assert row["verdict"] == "scores differ"
    monkeypatch.setattr(toy.Toy, "score", lambda *a: {"loss": score(*a)["gain"]})
    (row,) = rows(record, toy.Toy(spec), 3)
    assert row["verdict"] == "scores differ"


def test_a_trial_that_fails_again_with_the_same_kind_of_error_is_identical(
    spec: StudySpec,
) -> None:
    record = failed(spec, Failing(spec))
    assert rows(record, Failing(spec), 4) == [{"number": 4, "verdict": "identical"}]


def test_a_trial_that_fails_otherwise_differs(spec: StudySpec) -> None:
    record, bench = failed(spec, Failing(spec)), Failing(spec)
    bench.error = NonFiniteError("a.weight")
    (row,) = rows(record, bench, 4)
    assert (row["verdict"], row["reason"]) == (
        "scores differ",
        "failed with NonFiniteError, was MemoryError",
    )


def test_a_candidate_that_was_dropped_is_identical_if_it_fails_again(
    record: Record, spec: StudySpec
) -> None:
    trial = record.trial(0)
    found = Measurement(error="Traceback (most recent call last):\nMemoryError: no luck\n")
    record.trials[0] = replace(trial, measured={**trial.measured, "select": found})
    (works,) = rows(record, toy.Toy(spec), 0)
    assert works["reason"] == "failed with MemoryError when the study ran, works now"
    bench = toy.Toy(spec)
    score = bench.score

    def scored(pool: str, *blocks: Any) -> Any:
        if pool == "select":
            raise MemoryError("no luck")
        return score(pool, *blocks)

    bench.score = scored  # type: ignore[method-assign]
    assert rows(record, bench, 0) == [{"number": 0, "verdict": "identical"}]


def test_a_failed_trial_that_works_now_differs(spec: StudySpec) -> None:
    record = failed(spec, Failing(spec))
    (row,) = rows(record, toy.Toy(spec), 4)
    assert (row["verdict"], row["reason"]) == (
        "scores differ",
        "failed with MemoryError when the study ran, works now",
    )


def test_a_trial_that_failed_for_its_infinite_scores_is_identical(
    spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = toy.Task.score_one
    monkeypatch.setattr(
        toy.Task, "score_one", lambda *a: float("inf") if a[1].points[0][0] > 1.2 else score(*a)
    )
    spec = toy.spec_of(toy.STUDY, spec.folder, trials=8)
    record = toy.in_memory(spec)
    number = next(t.number for t in record.trials if t.state == "failed")
    assert record.trials[number].reason.startswith("merge_core.errors.NonFiniteError")
    assert rows(record, toy.Toy(spec), number) == [{"number": number, "verdict": "identical"}]


def test_an_unknown_trial_is_refused_before_anything_is_built(
    record: Record, spec: StudySpec
) -> None:
    bench = toy.Toy(spec)
    with pytest.raises(UnknownNameError, match="has no trial 9; it has 0 to 8"):
        rows(record, bench, 0, 9)
    assert bench.built == []


def test_a_longer_run_of_the_same_study_reproduces_the_shorter_ones_trials(
    record: Record, spec: StudySpec
) -> None:
    longer = toy.spec_of(toy.SHORT, spec.folder, trials=6)
    search(longer, record, toy.Toy(longer), toy.Listener(), toy.never)
    assert {row["verdict"] for row in rows(record, toy.Toy(spec))} == {"identical"}

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from merge_core.errors import MergeError
from mergetune.frames import Study
from search.report.measure import REPORT, measure
from search.report.select import select
from search.report.summarize import summarize
from search.spec.study_file import StudySpec
from search.storage.locate import open_study
from search.storage.study_record import Record
from tests.search import toy


@pytest.fixture
def spec(study: Callable[..., StudySpec]) -> StudySpec:
    return study(toy.SHORT)


@pytest.fixture
def record(spec: StudySpec) -> Record:
    """A finished search; its winner is not chosen yet."""
    return toy.searched(spec)


def finished(spec: StudySpec, record: Record) -> dict[str, Any]:
    bench, listener = toy.Toy(spec), toy.Listener()
    chosen = select(record, bench, listener)
    measure(record, bench, REPORT, chosen.named.values(), listener)
    found = summarize(record, spec, bench.tasks, chosen).to_json()
    record.finish(found)
    return found


def test_trials_are_those_of_the_record_with_a_column_for_every_knob(
    spec: StudySpec, record: Record
) -> None:
    study = Study(spec.storage)
    found = study.trials
    assert (study.name, study.folder) == ("short", spec.folder)
    assert found.index.tolist() == [t.number for t in record.trials]
    assert found.value.tolist() == [t.value for t in record.trials]
    knobs = [name for name in found.columns if name.startswith("params_")]
    searched = record.trials[-1]
    assert {f"params_{name}" for name in searched.params} == set(knobs)
    assert found[knobs[0]].iloc[-1] == searched.params[knobs[0].removeprefix("params_")]
    assert found[knobs[0]].isna().iloc[0], "the base has no place in the space"
    assert study.recipe(3) == record.trials[3].recipe.plain()


def test_answers_are_all_scores_of_all_pools_by_item(spec: StudySpec, record: Record) -> None:
    finished(spec, record)
    bench = toy.Toy(spec)
    found = Study(spec.storage).answers
    assert found.columns.tolist() == ["trial", "pool", "task", "item", "score"]
    counts = found.groupby("pool").size()
    assert counts["search"] == sum(t.search.items for t in record.trials)
    for pool in ("select", "report"):
        assert counts[pool] == 5 * len(toy.measured(record, pool))
    task = bench.tasks.evaluators["gain"]
    for row in found.sample(20, random_state=0).itertuples():
        model = bench.model(record.trials[row.trial].recipe)
        assert row.score == task.score_one(model, row.item)  # type: ignore[attr-defined]


def test_who_was_measured_on_a_part_of_a_pool_has_rows_for_its_first_items(
    spec: StudySpec, record: Record
) -> None:
    bench = toy.Toy(spec)
    measure(record, bench, REPORT, [3], toy.Listener(), part={"gain": (0, 2)})
    found = Study(spec.storage).answers.query("pool == 'report'")
    assert found.item.tolist() == list(record.item_ids("report")["gain"][:2])
    model = bench.model(record.trial(3).recipe)
    assert found.score.tolist() == [
        bench.tasks.evaluators["gain"].score_one(model, item) for item in found.item
    ]


def test_report_has_a_row_for_every_candidate_and_a_column_for_every_entry(
    spec: StudySpec, record: Record
) -> None:
    with pytest.raises(MergeError, match="is not finished"):
        _ = Study(spec.storage).report
    told = finished(spec, record)
    found = Study(spec.storage).report
    assert found.columns.tolist() == ["trial", "mean", "low", "high", "gain"]
    assert found.index.tolist() == [row["name"] for row in told["candidates"]]
    assert found["mean"].tolist() == [row["report"]["mean"] for row in told["candidates"]]
    assert found.loc["winner", "gain"] == told["winner"]["report"]["tasks"]["gain"]["mean"]


def test_study_that_has_no_trials_yet_has_empty_frames(spec: StudySpec) -> None:
    stopped = toy.searched(spec, stop=lambda: True)
    assert stopped.trials == []
    study = Study(spec.storage)
    assert (len(study.trials), len(study.answers)) == (0, 0)


def test_study_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MergeError, match="no such file"):
        Study(f"sqlite:///{tmp_path}/none.db")


def test_study_is_opened_by_its_file_too(spec: StudySpec, record: Record) -> None:
    assert open_study(spec.storage)[1].name == record.name
    (spec.folder / "study.yaml").write_text(toy.SHORT)
    assert len(Study(spec.folder).trials) == len(record.trials)

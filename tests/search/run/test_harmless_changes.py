"""What of a study file may change without harm is taken with a line, and the result holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from merge_core.errors import MergeError
from search.report.reproduce import reproduce
from search.run.loop import search
from search.run.resume import begin_or_check, carried, open_for
from search.run.search_again import search_again
from search.spec.changes import ChangedStudyError
from search.spec.study_file import StudySpec
from search.storage.locate import open_study
from search.storage.study_record import Record
from tests.search import toy
from tests.search.run.test_changed_budget import after, record_of, run

Study = Callable[..., StudySpec]
MINE = "{{merge_method: linear, models: [{{model: org/{}, parameters: {{weight: 1}}}}]}}"
POINT = """
merge_method: task_arithmetic
base_model: org/base
models:
  - {model: org/one, parameters: {weight: 0.6}}
  - {model: org/two, parameters: {weight: 0.3}}
"""
CMA = toy.STUDY.replace("sampler: random", "sampler: cma-es")
RACING = CMA.replace(", race: off", "").replace("search: 20", "search: 40")


@pytest.fixture
def rounding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a score's last digits hang on the batch size and the threads."""
    score, threads = toy.Toy.score, torch.get_num_threads()

    def rounded(self: toy.Toy, pool: str, blocks: Any = None) -> dict[str, list[float]]:
        asked = self.builder.environment
        last = 1e-9 * asked["batch_size"] + 1e-6 * asked["threads"]
        found = score(self, pool, blocks)
        return {task: [x + last for x in scores] for task, scores in found.items()}

    monkeypatch.setattr(toy.Toy, "score", rounded)
    yield
    torch.set_num_threads(threads)


def reproduced(spec: StudySpec) -> list[str]:
    """Return the verdicts on all trials, and on the search done again."""
    stored, record = open_study(spec.storage)
    bench = toy.Toy(stored, about=record.about)
    found = [row["verdict"] for row in reproduce(record, bench, range(len(record.trials)))]
    again = search_again(stored, record, toy.Toy(stored, about=record.about), toy.Listener())
    return [*dict.fromkeys(found), again["verdict"]]


def test_another_batch_size_and_other_threads_are_taken_and_each_trial_is_reproduced(
    study: Study, rounding: None
) -> None:
    assert run(study(toy.SHORT, trials=4), stop=after(7)) is None
    heard = toy.Listener()
    spec = study(toy.SHORT + "engine: {batch_size: 8, threads: 2}\n", trials=4)
    run(spec, listener=heard)
    told = [x for x in heard.notices if " was " in x and "search.trials" not in x]
    assert [x.partition(":")[0] for x in told] == [
        "engine.batch_size was 64, is 8",
        "engine.threads was 1, is 2",
    ]
    assert all("a few items may score otherwise" in x for x in told)
    record = record_of(spec)
    asked = [
        (run["environment"]["batch_size"], run["environment"]["threads"]) for run in record.runs
    ]
    assert asked == [(64, 1), (8, 2)]
    for trial in record.trials:
        for pool, found in trial.measured.items():
            another = pool != "search" and trial.number < 7
            assert found.asked == ({"batch_size": 8, "threads": 2} if another else {})
    assert reproduced(spec) == ["identical", "identical"]


def test_a_new_baseline_is_measured_where_the_search_is_and_may_win(study: Study) -> None:
    spec = study(trials=6)
    assert run(spec, stop=after(13)) is None
    (spec.folder / "best.yaml").write_text(POINT)
    heard = toy.Listener()
    more = study(toy.STUDY + "baselines: {best: best.yaml}\n", trials=6)
    report = run(more, listener=heard)
    said = "baselines.best was not set, is 'best.yaml': it is measured now; settled trials stay"
    assert said in heard.notices
    trials = record_of(more).trials
    (mine,) = [t for t in trials if t.baseline == "best"]
    assert mine.number == 13
    assert mine.params, "it is a point of the space, so the sampler learns from it"
    assert (record_of(more).about or {})["baselines"].keys() == {"best"}
    assert report.winner.trial == mine.number
    assert "best" in [row.name for row in report.candidates]
    assert reproduced(more) == ["identical", "identical"]


def test_a_baseline_of_a_finished_study_is_one_more_trial_and_a_new_report(study: Study) -> None:
    spec = study(toy.SHORT, trials=2)
    first = run(spec)
    (spec.folder / "mine.yaml").write_text(MINE.format("one"))
    more = study(toy.SHORT + "baselines: {mine: mine.yaml}\n", trials=2)
    second = run(more)
    trials = record_of(more).trials
    assert [t.baseline for t in trials[-2:]] == [trials[-2].baseline, "mine"]
    assert trials[-1].same_as == 1, "its weights are a parent's"
    assert second.winner.trial == first.winner.trial
    assert [x.name for x in second.candidates if x.name == "mine"] == ["mine"]
    assert reproduced(more) == ["identical", "identical"]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("text", [CMA, RACING])
def test_a_study_with_a_late_baseline_is_the_same_however_often_it_is_stopped(
    study: Study, text: str, workers: int
) -> None:
    found = []
    for folder, stops in (("whole", ()), ("broken", (1, 2, 4, 9))):
        spec = study(text, folder, trials=14)
        go_on(spec, after(15), workers)
        (spec.folder / "best.yaml").write_text(POINT)
        (spec.folder / "mine.yaml").write_text(MINE.format("two"))
        more = study(text + "baselines: {best: best.yaml, mine: mine.yaml}\n", folder, trials=14)
        for count in stops:
            go_on(more, after(count), workers)
        found.append(toy.kept(go_on(more, toy.never, workers).trials))
        again = search_again(more, record_of(more), toy.Toy(more), toy.Listener())
        assert again["verdict"] == "identical", again
    assert found[0] == found[1]
    assert [t.number for t in found[0] if t.baseline in ("best", "mine")] == [15, 16]


def go_on(spec: StudySpec, stop: Any, workers: int) -> Record:
    record, bench = open_for(spec), toy.Toy(spec)
    bench.count = workers
    search(spec, record, bench, toy.Listener(), stop)
    return record


def test_a_baseline_of_before_may_not_be_another_recipe_now(study: Study) -> None:
    spec = study()
    (spec.folder / "mine.yaml").write_text(MINE.format("one"))
    text = toy.STUDY + "baselines: {mine: mine.yaml}\n"
    run(study(text, trials=1))
    (spec.folder / "mine.yaml").write_text(MINE.format("two"))
    (spec.folder / "more.yaml").write_text(MINE.format("one"))
    with pytest.raises(ChangedStudyError, match=r"the baselines of study 'toy' .*\(mine\)"):
        run(study(text.replace("mine.yaml}", "mine.yaml, more: more.yaml}"), trials=1))


def test_models_that_only_a_new_baseline_has_are_compared_from_then_on(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(study(trials=1))
    spec = study()
    (spec.folder / "mine.yaml").write_text(MINE.format("three"))
    monkeypatch.setitem(toy.PARENTS, "org/three", (0.5, 0.5))
    behaviour = {**toy.ToyBuilder.behaviour, "org/three/config.json": "11"}
    monkeypatch.setattr(toy.ToyBuilder, "behaviour", behaviour)
    more = study(toy.STUDY + "baselines: {mine: mine.yaml}\n", trials=1)
    run(more)
    record = record_of(more)
    assert record.about is not None
    assert "org/three" in record.about["parents"]
    assert record.about["behaviour"]["org/three/config.json"] == "11"
    assert record.tensor_sums.keys() == toy.PARENTS.keys()
    monkeypatch.setitem(toy.PARENTS, "org/three", (0.5, 0.6))
    with pytest.raises(ChangedStudyError, match="the weights of org/three are not those"):
        run(more)


FEW = toy.STUDY.replace("report: 20", "report: 8")


def test_a_report_pool_grows_by_items_that_chose_nothing(study: Study) -> None:
    first = run(study(FEW, trials=2))
    before = record_of(study(FEW))
    heard = toy.Listener()
    spec = study(FEW.replace("report: 8", "report: 30"), trials=2)
    second = run(spec, listener=heard)
    record = record_of(spec)
    said = [x for x in heard.notices if x.startswith("items.report was 8, is 30: ")]
    assert len(said) == 1
    assert sum(map(len, record.item_ids("report").values())) == 30
    for pool in ("search", "select"):
        assert record.item_ids(pool) == before.item_ids(pool)
    for task, ids in before.item_ids("report").items():
        now = record.item_ids("report")[task]
        assert now[: len(ids)] == ids
        chose = {*record.item_ids("search")[task], *record.item_ids("select")[task]}
        assert not chose & {*now}
    winner = record.trial(second.winner.trial).measured["report"].scores
    assert sum(map(len, winner.values())) == 30
    assert second.winner.trial == first.winner.trial
    assert (record.about or {})["grown"] == [8]
    assert second.looks is not None
    assert second.looks.why == ["The winner was reported before, when there were 8 report items."]
    assert run(spec).to_json() == {**second.to_json(), "cost": run(spec).to_json()["cost"]}
    rest = run(study(FEW.replace("report: 8", "report: rest"), trials=2))
    assert (record_of(spec).about or {})["grown"] == [8, 30]
    assert rest.looks.count == 3
    assert sum(map(len, record_of(spec).item_ids("report").values())) == 40
    assert reproduced(spec) == ["identical", "identical"]
    with pytest.raises(ChangedStudyError, match=r"items\.report was 'rest', is 30"):
        run(spec)


def test_who_dies_between_two_commits_of_a_growing_pool_has_the_pool_of_before(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(study(FEW, trials=1))
    spec = study(FEW.replace("report: 8", "report: 30"), trials=1)
    record = open_for(spec)
    store = type(record._attributes).set
    monkeypatch.setattr(
        type(record._attributes),
        "set",
        lambda self, key, value: None if key == "mergetune" else store(self, key, value),
    )
    begin_or_check(spec, record, toy.Toy(spec, about=carried(spec, record)))
    monkeypatch.undo()
    found = record_of(spec)
    assert sum(map(len, found.item_ids("report").values())) == 8
    assert (found.about or {}).get("grown", []) == []
    run(spec)
    assert sum(map(len, record_of(spec).item_ids("report").values())) == 30


def test_more_report_items_than_there_are_change_nothing(study: Study) -> None:
    run(study(FEW, trials=1))
    with pytest.raises(MergeError, match="there are 80 items; ask for fewer"):
        run(study(FEW.replace("report: 8", "report: 99"), trials=1))
    assert run(study(FEW, trials=1)) is not None


def test_items_that_a_prior_chose_by_do_not_come_into_a_report(
    study: Study, tmp_path: Path
) -> None:
    run(study(folder="earlier", trials=1))
    text = FEW.replace("name: toy", "name: late")
    run(study(text, "late", trials=1, prior="../earlier"))
    more = study(text.replace("report: 8", "report: 9"), "late", trials=1, prior="../earlier")
    run(more)
    assert (record_of(more).about or {})["grown"] == [8]
    run(study(folder="earlier", trials=1, seed=4), fresh=True)  # it chooses by others now
    before = record_of(more).about
    most = study(text.replace("report: 8", "report: 30"), "late", trials=1, prior="../earlier")
    with pytest.raises(MergeError, match=r"search\.prior: the \w+ pool of study 'toy' has \d+"):
        run(most)
    (tmp_path / "earlier" / "study.yaml").unlink()
    with pytest.raises(MergeError, match=r"search\.prior: .*earlier"):
        run(most)
    assert record_of(more).about == before
    run(more)

"""The search of a study is done again from its seed, and compared trial by trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from merge_core.errors import MergeError
from search.run.loop import search
from search.run.resume import open_for
from search.run.search_again import search_again
from search.spec.study_file import StudySpec
from search.storage.open import open_record
from search.trial import builder
from search.trial.budget import Change
from tests.search import toy

Study = Callable[..., StudySpec]
CMA = toy.STUDY.replace("sampler: random", "sampler: cma-es")
SAME: dict[str, Any] = {"verdict": "identical", "first": None}


def again(spec: StudySpec, bench: toy.Toy | None = None) -> dict[str, Any]:
    record = open_record(spec.storage)
    return search_again(spec, record, bench or toy.Toy(spec), toy.Listener())


def run(spec: StudySpec, change: Change, stop: Any = toy.never, workers: int = 1) -> None:
    bench = toy.Toy(spec)
    bench.count = workers
    search(spec, open_for(spec), bench, toy.Listener(), stop, change)


@pytest.mark.parametrize("text", [toy.STUDY, CMA, toy.SHORT])
def test_a_search_again_has_the_same_trials_and_leaves_the_study_as_it_is(
    study: Study, text: str
) -> None:
    spec = study(text, trials=5)
    toy.searched(spec)
    before = open_record(spec.storage)
    count = len(before.trials)
    assert again(spec) == {**SAME, "trials": count, "same": count}
    after = open_record(spec.storage)
    assert (after.trials, after.runs, after.about) == (before.trials, before.runs, before.about)


@pytest.mark.slow
def test_a_study_that_was_stopped_and_had_several_budgets_is_searched_again_in_its_parts(
    study: Study,
) -> None:
    """Means of generations stand where each budget ended, and hours, patience or target too."""
    spec = study(CMA, trials=12, patience=1, target=-9.0)
    for change in (Change(more=7), Change(more=3)):
        run(spec, change)
    answers = iter([False] * 2)
    run(spec, Change(more=9), lambda: next(answers, True))
    record = open_record(spec.storage)
    assert [t.baseline for t in record.trials if t.is_mean()] == ["mean:7", "mean:10"]
    assert not record.trials[-1].is_mean()
    assert again(spec) == {**SAME, "trials": len(record.trials), "same": len(record.trials)}


def test_as_many_are_in_flight_as_each_run_had(study: Study) -> None:
    """The second run goes on with another number, where the first was stopped."""
    text, answers = CMA.replace("trials: 6", "trials: 14"), iter([False] * 15)
    spec = study(text)
    run(spec, Change(trials=14), lambda: next(answers, True), workers=3)
    run(spec, Change(trials=14), workers=2)
    record = open_record(spec.storage)
    assert [(run["trials"], run["workers"]) for run in record.runs] == [(0, 3), (15, 2)]
    assert again(spec) == {**SAME, "trials": len(record.trials), "same": len(record.trials)}
    alone = study(text, "alone")
    run(alone, Change(trials=14))
    params = [[t.params for t in open_record(x.storage).trials] for x in (spec, alone)]
    assert params[0] != params[1], "or the number says nothing"


def test_a_study_in_free_order_is_not_searched_again(study: Study) -> None:
    spec = study(toy.STUDY.replace("race: off", "race: off, order: free"), trials=1)
    toy.searched(spec)
    with pytest.raises(MergeError, match=r"^--search: the study has `search.order: free`, so"):
        again(spec)


def test_the_first_trial_that_scores_otherwise_ends_it_and_is_told(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = study(trials=9)
    record = toy.searched(spec)
    wanted, score = record.trials[4].weights_digest, toy.Task.score_one
    bench = toy.Toy(spec)
    monkeypatch.setattr(
        toy.Task,
        "score_one",
        lambda self, model, item: (
            score(self, model, item)
            + (1e-9 if model.digest == wanted and self.task == "loss" else 0)
        ),
    )
    monkeypatch.setattr(builder, "version", lambda _: "9")
    found = again(spec, bench)
    assert (found["verdict"], found["same"], found["trials"]) == ("scores differ", 4, 19)
    assert found["first"] == {"number": 4, "reason": "of loss"}
    keys = [one["key"] for one in found["environment"]]
    assert {"torch", "numpy"} <= {*keys}
    assert len(bench.built) <= 6, "nothing is searched after it"


def test_other_parents_give_other_weights_and_are_no_error(study: Study) -> None:
    spec = study(trials=2)
    toy.searched(spec)
    bench = toy.Toy(spec, parents={**toy.PARENTS, "org/two": (0.0, 1.25)})
    found = again(spec, bench)
    assert (found["verdict"], found["same"]) == ("weights differ", 2)
    assert found["first"]["number"] == 2
    assert found["first"]["reason"].startswith("digest is ")


def test_another_draw_is_told_with_what_it_draws(study: Study) -> None:
    spec = study(trials=4)
    toy.searched(spec)
    found = again(study(trials=4, sampler="qmc"))
    assert (found["verdict"], found["same"]) == ("recipes differ", 10)
    assert found["first"]["number"] == 10
    assert "parameters.weight was " in found["first"]["reason"]


def test_a_prior_that_was_taken_over_is_taken_over_again_from_the_record(study: Study) -> None:
    other = study(toy.STUDY, "other", trials=5)
    toy.searched(other)
    (other.folder / "study.yaml").write_text(toy.STUDY)
    spec = study(toy.STUDY.replace("race: off", "race: off, prior: ../other"), trials=3)
    toy.searched(spec)
    (other.folder / "study.yaml").unlink()
    found = again(spec)
    assert (found["verdict"], found["same"]) == ("identical", found["trials"])

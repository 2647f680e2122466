"""A study that has begun goes on with another budget, and ends where its budget says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from merge_core.errors import MergeError
from search.report import files as results
from search.report.summary import Report
from search.run import study as whole
from search.run.resume import open_for
from search.spec.study_file import StudySpec
from search.storage.locate import open_study
from search.storage.open import open_record
from search.storage.study_record import Record
from search.trial.budget import Change, searched, since_best
from search.workers import hire
from tests.search import toy

Study = Callable[..., StudySpec]


def run(
    spec: StudySpec,
    *,
    listener: Any = None,
    stop: Any = toy.never,
    fresh: bool = False,
    callbacks: Sequence[str] = (),
    **change: Any,
) -> Any:
    """Run a whole study, but for its model folder; return its report, None if it was stopped."""
    (spec.folder / "study.yaml").write_text(json.dumps(dict(spec.data)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hire, "Worker", lambda *given: toy.Toy(spec, about=given[2]))
        patch.setattr(results, "write", lambda *_: None)
        heard, asked = listener or toy.Listener(), Change.of(**change)
        how: Any = {"fresh": fresh, "callbacks": callbacks}
        return whole.run(spec.folder, heard, stop, asked, **how)


def record_of(spec: StudySpec) -> Record:
    return open_record(spec.storage)


def asked(spec: StudySpec) -> int:
    return searched(record_of(spec).trials)


def after(count: int) -> Callable[[], bool]:
    answers = iter([False] * count)
    return lambda: next(answers, True)


def test_options_are_the_budget_of_their_run_alone(study: Study) -> None:
    spec = study(trials=4)
    run(spec, trials=2)
    assert asked(spec) == 2
    run(spec)
    assert asked(spec) == 4
    run(spec, trials=3)  # fewer than there are
    run(spec)
    assert asked(spec) == 4
    run(spec, more=2)
    run(spec)
    assert asked(spec) == 6
    run(spec, hours=1e-9, trials=30)
    assert asked(spec) == 6


def test_more_on_a_study_that_has_not_begun_is_its_number_of_trials(study: Study) -> None:
    spec = study(trials=40)
    run(spec, more=3)
    assert asked(spec) == 3


def test_a_longer_study_has_the_trials_of_one_that_was_so_long_from_the_start(
    study: Study,
) -> None:
    text = toy.STUDY.replace("sampler: random", "sampler: cma-es")
    spec, whole_ = study(text, trials=4), study(text, folder="whole", trials=12)
    for change in ({"trials": 7}, {"more": 3}, {"trials": 12}):
        run(spec, **change)
    run(whole_)
    ours, theirs = (record_of(x).trials for x in (spec, whole_))
    assert [t.baseline for t in ours if t.is_mean()] == ["mean:7", "mean:10", "mean:12"]
    assert [t.baseline for t in theirs if t.is_mean()] == ["mean:12"]
    ours, theirs = ([t for t in x if not t.is_mean()] for x in (ours, theirs))
    assert [(t.recipe, t.value) for t in ours] == [(t.recipe, t.value) for t in theirs]


def test_a_finished_study_with_more_trials_selects_and_reports_anew(study: Study) -> None:
    spec = study(toy.SHORT, trials=1, finalists=3)
    first = run(spec)
    assert first.looks is None
    heard = toy.Listener()
    second = run(spec, listener=heard, more=30)
    assert asked(spec) == 31
    assert second.winner.trial != first.winner.trial
    assert second.winner.select.mean > first.winner.select.mean
    assert record_of(spec).summary == second.to_json()
    assert second.looks is not None
    won = first.winner.trial
    assert second.looks.model_dump() == {
        "count": 2,
        "why": [f"Trial {won} won before this one, and was measured on the same report items."],
    }
    assert first.earlier_winners is None
    assert second.earlier_winners == [first.winner.trial]
    assert "the search will have 31 trials" in heard.notices[1]
    assert run(spec).to_json() == {**second.to_json(), "cost": run(spec).to_json()["cost"]}


def test_more_finalists_are_no_reason_to_start_anew(study: Study) -> None:
    run(study(trials=9, finalists=1))
    spec = study(trials=9, finalists=9)
    assert record_of(spec).finalists.most == 1
    run(spec)
    assert record_of(spec).finalists.most == 9


def test_a_run_with_more_that_was_stopped_says_how_it_goes_on(study: Study) -> None:
    spec, heard = study(trials=2), toy.Listener()
    assert run(spec, listener=heard, stop=after(14), more=9) is None
    assert asked(spec) == 4
    run(spec, more=5)
    assert asked(spec) == 9
    assert any("--more takes what is then missing of them" in x for x in heard.notices)


@pytest.mark.parametrize(
    ("search", "by", "why"),
    [
        ({"patience": 4}, "patience", "4 trials in a row were no better"),
        ({"target": 0.3}, "target", "a search value of "),
        ({"hours": 1e-9}, "hours", "0 trials took 1e-09 hours"),
        ({"trials": 3}, "trials", "3 trials are searched"),
    ],
)
def test_why_the_search_ended_is_said_and_stands_in_the_summary(
    study: Study, search: Any, by: str, why: str
) -> None:
    spec, heard = study(**{"trials": 60, **search}), toy.Listener()
    report: Report = run(spec, listener=heard)
    assert report.ended is not None
    assert (report.ended.by, report.ended.why.startswith(why)) == (by, True)
    assert report.to_json()["ended"] == {"by": by, "why": report.ended.why}
    assert Report.from_json(report.to_json()) == report
    said = [x for x in heard.notices if x == f"the search ends: {report.ended.why} (search.{by})"]
    assert len(said) == (by != "trials")
    stored = len(record_of(spec).trials)
    assert run(spec).to_json() == report.to_json()
    assert len(record_of(spec).trials) == stored, "a second run goes on to nothing"


def test_patience_ends_a_resumed_search_where_it_ends_an_unbroken_one(study: Study) -> None:
    unbroken = study(folder="unbroken", trials=60, patience=5)
    run(unbroken)
    trials = record_of(unbroken).trials
    assert since_best(trials) == 5
    assert 5 <= searched(trials) < 60
    for count in (3, 11, 13):
        spec = study(folder=f"stopped {count}", trials=60, patience=5)
        assert run(spec, stop=after(count)) is None
        run(spec)
        assert len(record_of(spec).trials) == len(trials)


def test_a_summary_of_an_earlier_version_says_nothing_of_the_end(study: Study) -> None:
    summary = run(study(trials=1)).to_json()
    del summary["ended"]
    assert Report.from_json(summary).ended is None


NAMED = r"changed: score\[1\]\.weight was 0\.5, is 0\.25; search\.seed was 3, is 4\. Change it back"


def test_a_change_of_what_defines_scores_names_every_key_path(study: Study) -> None:
    run(study(trials=1))
    other = toy.STUDY.replace("weight: 0.5", "weight: 0.25").replace("seed: 3", "seed: 4")
    with pytest.raises(MergeError, match=NAMED):
        open_for(study(other, trials=9, patience=1, target=2.0, finalists=1))


def test_a_database_that_is_moved_goes_on_and_finds_its_study_file(
    study: Study, tmp_path: Path
) -> None:
    spec = study(trials=1)
    run(spec)
    moved = tmp_path / "data" / "bases" / "moved.db"
    moved.parent.mkdir(parents=True)
    shutil.copy(spec.results / "study.db", moved)
    again, heard = study(toy.STUDY + f"storage: sqlite:///{moved}\n", trials=2), toy.Listener()
    run(again, listener=heard)
    assert asked(again) == 2
    found, _ = open_study(f"sqlite:///{moved}")
    assert found.folder == spec.folder
    assert f"storage was not set, is 'sqlite:///{moved}': where its database is"[:70] in "".join(
        heard.notices
    )
    assert "folder was '..', is '../../study': where the study file is, seen from its database" in (
        heard.notices
    )


def test_each_change_that_may_be_is_told_once(study: Study) -> None:
    run(study(trials=1))
    heard, again = toy.Listener(), toy.Listener()
    longer = study(trials=2, patience=30, finalists=2)
    run(longer, listener=heard)
    told = [x for x in heard.notices if " was " in x]
    assert told == [
        "search.trials was 1, is 2: how long the search is; settled trials stay",
        "search.patience was not set, is 30: how long the search is; settled trials stay",
        "search.finalists was 3, is 2: who is chosen among when the search is over",
    ]
    run(longer, listener=again)
    assert not [x for x in again.notices if " was " in x]
    assert (record_of(longer).about or {})["study"] == longer.data


def test_a_refused_change_leaves_what_is_stored(study: Study) -> None:
    run(study(trials=1))
    before = record_of(study()).about
    with pytest.raises(MergeError, match=r"engine\.max_model_len was not set, is 8"):
        run(study(toy.STUDY + "engine: {name: vllm, max_model_len: 8}\n", trials=9))
    assert record_of(study()).about == before


def test_later_pools_say_how_long_they_take_once_one_candidate_is_scored(study: Study) -> None:
    spec, heard = study(trials=2), toy.Listener()
    run(spec, listener=heard)
    told = [x for x in zip(heard.stages, heard.left, strict=True) if x[0].startswith("select")]
    assert told[0][1] is None
    assert all(left is not None and left >= 0 for _, left in told[1:])
    assert told[-1][1] == 0.0 or len(told) > 2

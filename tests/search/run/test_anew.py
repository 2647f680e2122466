"""A study starts anew by itself where nothing is lost by that, and else when the user says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from merge_core.errors import MergeError, StorageError
from search.run import anew
from search.spec.changes import ChangedStudyError
from search.spec.study_file import StudySpec
from search.storage.locate import open_study
from search.storage.open import open_record
from search.storage.stored import Stored
from tests.search import toy
from tests.search.run.test_changed_budget import after, record_of, run

Study = Callable[..., StudySpec]
OTHER = toy.STUDY.replace("weight: 0.5", "weight: 0.25").replace("seed: 3", "seed: 4")
APART = toy.STUDY + "aggregate: apart\n"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Let all candidates fail, or none."""
    built = toy.Toy.build

    def fail(fails: bool) -> None:
        def build(self: toy.Toy, recipe: Any) -> str:
            if fails:
                raise MemoryError("too large")
            return built(self, recipe)

        monkeypatch.setattr(toy.Toy, "build", build)

    return fail


def names(spec: StudySpec) -> list[str]:
    return sorted(record_of(spec).stored.names())


@pytest.mark.parametrize("text", [OTHER, APART])
def test_a_study_without_a_trial_starts_anew_when_its_file_changes(study: Study, text: str) -> None:
    assert run(study(trials=1), stop=lambda: True) is None
    heard = toy.Listener()
    run(study(text, trials=1), listener=heard)
    (told,) = [x for x in heard.notices if "starts anew" in x]
    assert told.startswith("study 'toy' starts anew (it has no completed trial, and study 'toy' in")
    assert "score[1].weight was 0.5, is 0.25" in told or "aggregate was 'mean'" in told
    assert told.endswith("there was no trial yet")
    assert names(study()) == ["toy"]
    assert record_of(study()).summary is not None


def test_a_study_whose_trials_failed_starts_anew_and_keeps_what_failed(
    study: Study, failing: Callable[[bool], None]
) -> None:
    failing(True)
    with pytest.raises(MergeError, match="every baseline failed"):
        run(study(trials=1))
    failing(False)
    heard = toy.Listener()
    run(study(OTHER, trials=1), listener=heard)
    assert names(study()) == ["toy", "toy.before-1"]
    kept = open_record(study().storage, "toy.before-1")
    assert {trial.reason for trial in kept.trials} == {"MemoryError: too large"}
    assert any("10 trials are kept as study 'toy.before-1'" in x for x in heard.notices)
    assert "--name" not in str(open_study(study().storage)[1].name)  # the other is not asked for


def test_another_environment_starts_a_study_without_scores_anew(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(study(trials=1), stop=lambda: True) is None
    monkeypatch.setattr(toy.ToyBuilder, "_versions", {"torch": "1.0"})
    heard = toy.Listener()
    run(study(trials=1), listener=heard)
    assert any("ran in another environment: torch was" in x for x in heard.notices)
    assert record_of(study()).runs[0]["environment"]["torch"] == "1.0"


def test_other_weights_start_a_study_without_scores_anew(
    study: Study, failing: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(True)
    with pytest.raises(MergeError, match="every baseline failed"):
        run(study(trials=1))
    with monkeypatch.context() as patch:
        patch.setitem(toy.PARENTS, "org/one", (0.9, 0.0))
        heard = toy.Listener()
        with pytest.raises(MergeError, match="every baseline failed"):
            run(study(trials=1), listener=heard)
        assert any("the weights of org/one are not those" in x for x in heard.notices)
    failing(False)
    heard = toy.Listener()
    run(study(trials=1), listener=heard)
    assert any("the weights of org/one are not those" in x for x in heard.notices)
    assert names(study()) == ["toy", "toy.before-1", "toy.before-2"]
    assert record_of(study()).summary is not None


def test_a_study_with_scores_is_refused_until_it_is_to_start_over(study: Study) -> None:
    assert run(study(trials=1), stop=after(2)) is None
    with pytest.raises(ChangedStudyError, match="--fresh keeps what is there as another study"):
        run(study(OTHER, trials=1))
    before = toy.kept(record_of(study()).trials)
    heard = toy.Listener()
    run(study(OTHER, trials=1), listener=heard, fresh=True)
    kept = open_record(study().storage, "toy.before-1")
    assert toy.kept(kept.trials) == before
    assert kept.about is not None
    assert kept.about["study"]["name"] == "toy.before-1"
    assert heard.notices[0] == (
        "study 'toy' starts anew (--fresh): its 2 trials are kept as study 'toy.before-1' "
        "(`mergetune trials STUDY#toy.before-1`)"
    )
    assert (record_of(study()).about or {})["study"]["score"][1]["weight"] == 0.25


def test_a_fresh_study_is_the_one_that_a_new_database_would_have(study: Study) -> None:
    first, other = study(trials=3), study(folder="other", trials=3)
    run(first, trials=2)
    run(first, fresh=True)
    run(other)
    assert toy.kept(record_of(first).trials) == toy.kept(record_of(other).trials)
    run(first, fresh=True)
    assert names(first) == ["toy", "toy.before-1", "toy.before-2"]


def test_fresh_where_nothing_is_stored_is_a_plain_run(study: Study) -> None:
    heard = toy.Listener()
    run(study(trials=1), listener=heard, fresh=True)
    assert not [x for x in heard.notices if "anew" in x]
    assert names(study()) == ["toy"]


def test_a_winner_that_was_put_aside_has_looked_at_the_report_items(study: Study) -> None:
    first = run(study(toy.SHORT, trials=1))
    heard = toy.Listener()
    second = run(study(toy.SHORT, trials=30), listener=heard, fresh=True)
    assert second.winner.weights_digest != first.winner.weights_digest
    assert second.looks is not None
    assert second.looks.count == 2
    assert any(
        "study 'short.before-1' has measured winners on 5 of the report" in x for x in heard.notices
    )
    assert any("its results stay in their folder until" in x for x in heard.notices)
    third = run(study(toy.SHORT, trials=30), fresh=True)
    assert third.looks is not None
    assert third.looks.count == 2, "the second winner is the same candidate again"


def test_who_dies_on_the_way_has_lost_nothing(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = study(trials=1)
    run(spec)
    before = toy.kept(record_of(spec).trials)

    def dies(*_: object) -> None:
        raise StorageError("gone")

    for name in ("remove", "copy_to"):
        with monkeypatch.context() as patch:
            patch.setattr(Stored, name, dies)
            with pytest.raises(StorageError, match="gone"):
                run(spec, fresh=True)
        assert toy.kept(open_record(spec.storage, "toy").trials) == before
    run(spec, fresh=True)
    assert toy.kept(open_record(spec.storage, "toy.before-2").trials) == before


def test_a_study_that_another_process_writes_is_not_put_aside(study: Study) -> None:
    spec = study(trials=1)
    run(spec)
    with record_of(spec).writing(), pytest.raises(MergeError, match="is being run by process"):
        anew.start_over(spec, toy.Listener(), toy.never)
    assert names(spec) == ["toy"]

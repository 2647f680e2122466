"""Each winner that was measured on the report items is a look at them, whoever's winner it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from merge_core.errors import MergeError, StorageError
from search.report import files as results
from search.report.summary import Report
from search.run import study as whole
from search.scoring import intervals
from search.spec.study_file import StudySpec
from search.storage.open import open_record
from search.storage.study_record import Record
from search.workers import hire
from tests.search import toy

Study = Callable[..., StudySpec]


def run(spec: StudySpec, others: Any = (), listener: Any = None) -> Report:
    """Run a whole study, but for its model folder."""
    (spec.folder / "study.yaml").write_text(json.dumps(dict(spec.data)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hire, "Worker", lambda *_: toy.Toy(spec))
        patch.setattr(results, "write", lambda *_: None)
        heard = listener or toy.Listener()
        found = whole.run(spec.folder, heard, toy.never, others=[str(x) for x in others])
        assert found is not None
        return found


def record_of(spec: StudySpec) -> Record:
    return open_record(spec.storage)


@pytest.fixture
def pair(study: Study) -> tuple[StudySpec, StudySpec]:
    """Return two studies on the same items whose winners differ."""
    return study(toy.SHORT, folder="one"), study(toy.SHORT, folder="two", trials=30)


def test_a_study_alone_has_one_look_and_nothing_is_widened(study: Study) -> None:
    spec = study(toy.SHORT)
    found = run(spec)
    assert found.looks is None
    assert found.winner.report.widened is None
    assert found.winner.minus_best_parent.widened is None
    (look,) = record_of(spec).looks
    assert (look.trial, look.items) == (found.winner.trial, 5)


def test_another_studys_winner_on_the_same_items_is_a_look(pair: Any) -> None:
    one, two = pair
    first, heard = run(one), toy.Listener()
    second = run(two, [one.folder], heard)
    assert first.winner.weights_digest != second.winner.weights_digest
    assert second.looks is not None
    assert second.looks.count == 2
    (why,) = second.looks.why
    assert why == (
        f"Trial {first.winner.trial} of study short won there, and was measured on 5 of the 5 "
        "report items of this study."
    )
    assert any("has measured winners on 5 of the report items" in x for x in heard.notices)
    assert any("97.5 % interval" in x and "2 looks" in x for x in second.sentences)
    assert run(two).looks == second.looks  # it is stored


def test_widened_limits_are_those_at_bonferronis_level(pair: Any) -> None:
    one, two = pair
    run(one)
    found = run(two, [one.folder])
    record, bench = record_of(two), toy.Toy(two)
    minus = found.winner.minus_best_parent
    rival = next(row.trial for row in found.candidates if row.name == found.best_parent)
    ours, theirs = (
        bench.tasks.oriented(record.trial(n).measured["report"].scores, "report")["gain"]
        for n in (found.winner.trial, rival)
    )
    plain, wide = (intervals.paired_difference([ours], [theirs], [1.0], x) for x in (0.95, 0.975))
    assert (minus.low, minus.high) == pytest.approx((plain.low, plain.high))
    assert (minus.widened.low, minus.widened.high) == pytest.approx((wide.low, wide.high))
    whole_ = intervals.combined([ours], [1.0], 0.975)
    assert found.winner.report.widened.model_dump() == pytest.approx(
        {"low": whole_.low, "high": whole_.high}
    )


def test_the_same_winner_is_no_second_look(study: Study) -> None:
    one, two = (study(toy.SHORT, folder=name) for name in ("one", "two"))
    assert (
        run(one).winner.weights_digest == run(two, [one.folder, one.folder]).winner.weights_digest
    )
    assert run(two).looks is None


def test_a_study_with_other_report_items_is_no_look(study: Study) -> None:
    other = toy.SHORT.replace("task: gain", "task: loss")
    one, two = study(other, folder="one"), study(toy.SHORT, folder="two")
    run(one)
    assert run(two, [one.folder]).looks is None


def test_the_study_files_prior_is_looked_at_when_a_study_begins(study: Study) -> None:
    one = study(toy.SHORT, folder="one")
    first = run(one)
    two = study(toy.SHORT, folder="two", trials=30, prior="../one")
    found = run(two)
    assert found.looks is not None
    assert found.looks.count == 2
    (one.folder / "study.yaml").unlink()
    assert first.winner.weights_digest in [x.weights_digest for x in record_of(two).looks]
    assert run(two).looks == found.looks


def test_another_study_is_named_from_the_working_directory(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    run(one)
    monkeypatch.chdir(one.folder.parent)
    found = run(two, ["one"])
    assert found.looks is not None


def test_a_study_that_is_not_there_is_named_before_anything_is_searched(study: Study) -> None:
    spec = study(toy.SHORT)
    with pytest.raises(MergeError, match="nowhere"):
        run(spec, [spec.folder / "nowhere"])
    assert not record_of(spec).trials


def test_what_is_stored_and_damaged_is_one_line(study: Study) -> None:
    spec = study(toy.SHORT)
    run(spec)
    record = record_of(spec)
    record._attributes.set("looks", [{"study": 3}])
    with pytest.raises(StorageError, match=r"is damaged: looks\.looks\[0\]\.study"):
        _ = record.looks

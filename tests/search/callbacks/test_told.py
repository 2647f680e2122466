"""Callbacks hear of each trial once and in order, and of nothing that a study file asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from merge_core.errors import DocumentError, MergeError, ParameterError, UnknownNameError
from search.callbacks import registry
from search.callbacks.protocol import Row, Started
from search.callbacks.registry import CALLBACKS, made
from search.spec.study_file import StudySpec
from tests.search import toy
from tests.search.run.test_changed_budget import after, record_of, run

Study = Callable[..., StudySpec]


class Mine:
    """Keeps what it hears; raises where it is to."""

    made: list[Mine] = []  # noqa: RUF012
    fails = ""

    def __init__(self) -> None:
        self.begun: Started | None = None
        self.rows: list[Row] = []
        self.ends: list[Mapping[str, Any] | None] = []
        Mine.made.append(self)

    def started(self, study: Started) -> str:
        self.begun = study
        self._fail("started")
        return "look at me"

    def settled(self, trial: Row) -> None:
        self.rows.append(trial)
        self._fail("settled")

    def finished(self, summary: Mapping[str, Any] | None) -> None:
        self.ends.append(summary)
        self._fail("finished")

    def _fail(self, where: str) -> None:
        if Mine.fails == where:
            raise OSError("no network\nsecond line")


@pytest.fixture(autouse=True)
def mine(monkeypatch: pytest.MonkeyPatch) -> type[Mine]:
    monkeypatch.setattr(Mine, "made", [])
    monkeypatch.setattr(Mine, "fails", "")
    monkeypatch.setitem(CALLBACKS._added, "mine", Mine)
    return Mine


def test_each_trial_is_heard_once_and_in_order_over_all_runs_of_a_study(study: Study) -> None:
    spec, heard = study(trials=14, sampler="cma-es"), toy.Listener()
    assert run(spec, stop=after(13), listener=heard, callbacks=["mine"]) is None
    report = run(spec, callbacks=["mine"])
    first, second = Mine.made
    assert first.begun is not None
    assert second.begun is not None
    assert "mine: look at me" in heard.notices
    trials = record_of(spec).trials
    assert trials[-1].is_mean(), "which no progress counts"
    assert [row["number"] for row in (*first.rows, *second.rows)] == list(range(len(trials)))
    assert [row["number"] for row in second.begun.trials] == list(range(len(first.rows)))
    last, seconds = dict(second.rows[-1]), trials[-1].search.seconds
    assert last.pop("seconds") == pytest.approx(sum(seconds.values()), abs=2e-4)
    assert last == {key: x for key, x in trials[-1].row().items() if key != "seconds"}
    assert (first.ends, second.ends) == ([None], [report.to_json()])
    assert first.begun.id == second.begun.id
    assert (first.begun.study, first.begun.file) == ("toy", spec.data)
    assert first.begun.results == spec.results
    run(spec, fresh=True, callbacks=["mine"])
    assert Mine.made[2].begun is not None
    assert Mine.made[2].begun.id != first.begun.id


def test_one_that_cannot_start_ends_the_run_before_a_trial(study: Study) -> None:
    Mine.fails = "started"
    with pytest.raises(MergeError, match=r"^--callback mine: cannot start: OSError: no network$"):
        run(study(trials=1), callbacks=["mine"])
    assert record_of(study()).trials == []


@pytest.mark.parametrize("where", ["settled", "finished"])
def test_one_that_fails_later_is_told_of_and_the_study_goes_on(study: Study, where: str) -> None:
    Mine.fails = where
    heard = toy.Listener()
    assert run(study(trials=1), listener=heard, callbacks=["mine"]) is not None
    said = [x for x in heard.notices if x.startswith("--callback mine: ")]
    assert said == ["--callback mine: OSError: no network; it hears no more of this run"]
    assert len(Mine.made[0].rows) == (1 if where == "settled" else 11)


def test_a_run_that_breaks_is_one_that_is_not_finished(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any, **__: Any) -> None:
        raise MergeError("broken")

    monkeypatch.setattr("search.run.study.choose", breaks)
    with pytest.raises(MergeError, match="broken"):
        run(study(trials=1), callbacks=["mine"])
    assert Mine.made[0].ends == [None]


def test_names_are_known_before_anything_is_opened(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownNameError, match=r"no callback is named 'wandp'.*'wandb'"):
        run(study(trials=1), callbacks=["wandp"])
    monkeypatch.setattr(registry, "find_spec", lambda _: None)
    for name in ("wandb", "mlflow", "tensorboard"):
        with pytest.raises(ParameterError, match=rf"pip install 'mergetune\[{name}\]'"):
            run(study(trials=1), callbacks=[name])
    with pytest.raises(UnknownNameError, match="has no study"):
        record_of(study())


def test_another_package_brings_one_as_an_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told-1.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: told\nVersion: 1\n")
    (told / "entry_points.txt").write_text("[mergetune.callbacks]\ntold = told_of:Told\n")
    (tmp_path / "told_of.py").write_text("class Told:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("merge_core.plugins.entry_points", entry_points)  # that are not cached
    CALLBACKS.__dict__.pop("_places", None)
    try:
        assert type(made(["told"])["told"]).__name__ == "Told"
    finally:
        CALLBACKS.__dict__.pop("_places", None)


def test_a_study_file_cannot_name_callbacks(study: Study) -> None:
    with pytest.raises(DocumentError, match="callbacks: unknown key"):
        study(toy.STUDY + "callbacks: [wandb]\n")


def test_the_command_line_takes_names(study: Study, mergetune: Any) -> None:
    spec = study()
    (spec.folder / "study.yaml").write_text(toy.STUDY)
    code, _, err = mergetune("run", spec.folder, "--callback", "nobody")
    assert (code, "no callback is named 'nobody'" in err) == (1, True)
    assert "known: mine, mlflow, tensorboard, wandb" in err

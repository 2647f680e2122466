"""What is no user's error ends a run with one line; its traceback is kept beside the results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from merge_core.errors import MergeError, NonFiniteError
from search.run import study as studies
from search.trial.failure import Failure, InterruptedStudyError
from tests.search import toy


def raising(error: Exception) -> Callable[..., Any]:
    def wrong(*_: object) -> Any:
        raise error

    return wrong


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], str]:
    """Runs a study in which an error is raised; returns the line that the user reads."""
    (tmp_path / "study.yaml").write_text(toy.STUDY)

    def ended(error: Exception) -> str:
        monkeypatch.setattr(studies, "open_for", raising(error))
        with pytest.raises(MergeError) as told:
            studies.run(tmp_path, toy.Listener(), toy.never)
        return str(told.value)

    return ended


def test_what_nobody_foresaw_is_one_line_with_a_traceback_in_a_file(
    run: Callable[[Exception], str], tmp_path: Path
) -> None:
    file = tmp_path / "results" / "traceback.txt"
    assert run(ValueError("a bug\nof ours")) == f"ValueError: a bug of ours (traceback: {file})"
    assert "in wrong\n" in file.read_text()


def test_an_interrupted_study_says_what_broke_and_where_it_is_told_whole(
    run: Callable[[Exception], str], tmp_path: Path
) -> None:
    file = tmp_path / "results" / "traceback.txt"
    failure = Failure(False, "OSError", "OSError: disk", "Traceback: long", "Traceback: long")
    assert run(InterruptedStudyError("trial 3", failure)) == (
        f"trial 3: OSError: disk; nothing of it is stored; mend that and run again "
        f"to go on (traceback: {file})"
    )
    assert file.read_text() == "Traceback: long"


def test_an_error_that_the_user_can_mend_stays_as_it_is(
    run: Callable[[Exception], str], tmp_path: Path
) -> None:
    assert run(NonFiniteError("a.weight")) == "a.weight"
    assert not (tmp_path / "results" / "traceback.txt").exists()


def test_a_traceback_that_cannot_be_kept_hides_no_error(
    run: Callable[[Exception], str], tmp_path: Path
) -> None:
    (tmp_path / "results" / "traceback.txt").mkdir(parents=True)
    assert run(ValueError("a bug")).startswith("ValueError: a bug (its traceback could not be")


def test_a_run_that_broke_bars_no_other_run_of_the_same_process(
    run: Callable[[Exception], str],
) -> None:
    kept = [run(ValueError("one")), run(ValueError("two"))]
    assert [line[:15] for line in kept] == ["ValueError: one", "ValueError: two"]


def test_the_password_of_a_storage_is_neither_in_the_line_nor_in_the_file(
    run: Callable[[Exception], str], tmp_path: Path
) -> None:
    secret = "hunter2-SECRET"
    (tmp_path / "study.yaml").write_text(
        f"{toy.STUDY}storage: 'postgresql://me:{secret}@localhost/db?sslkey=other-{secret}'\n"
    )
    said = run(KeyError(f"postgresql://me:{secret}@localhost"))
    assert said.startswith("KeyError: 'postgresql://me:***@localhost' (traceback: ")
    assert secret not in (tmp_path / "results" / "traceback.txt").read_text()

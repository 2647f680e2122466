"""What a study leaves is its own: another one in the same folder does not write over it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from merge_core.errors import OutputExistsError
from search.report.files import SUMMARY, check_owner
from search.spec import study_file
from tests.search import toy


@pytest.mark.parametrize(
    ("name", "results"),
    [("study.yaml", "results"), ("a.yaml", "results/a"), ("b.yml", "results/b")],
)
def test_each_study_file_of_a_folder_has_results_of_its_own(
    tmp_path: Path, name: str, results: str
) -> None:
    (tmp_path / name).write_text(toy.SHORT)
    assert study_file.read(tmp_path / name).results == tmp_path / results


def test_what_another_study_found_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / SUMMARY).write_text(json.dumps({"study": "first"}))
    check_owner(tmp_path, "first")
    with pytest.raises(OutputExistsError, match="holds what study 'first' found; give study 'sec"):
        check_owner(tmp_path, "second")


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", "1"])
def test_a_summary_that_is_none_is_nobodys(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / SUMMARY).write_text(text)
    check_owner(tmp_path, "second")

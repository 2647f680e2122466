"""`mergetune report` writes what there is, beside the study, and says where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.report.select import choose
from search.report.summarize import summarize
from search.spec.study_file import StudySpec
from tests.search import toy
from tests.search.report.pages import tree, words

Study = Callable[..., StudySpec]
Command = Callable[..., tuple[Any, str, str]]


@pytest.fixture
def folder(study: Study) -> Path:
    """Return the folder of a toy study that is searched, but not finished."""
    spec = study(toy.SHORT)
    (spec.folder / "study.yaml").write_text(yaml.safe_dump(dict(spec.data)), encoding="utf-8")
    toy.searched(spec)
    return spec.folder


def finish(folder: Path) -> None:
    spec = toy.spec_of((folder / "study.yaml").read_text(encoding="utf-8"), folder)
    bench = toy.Toy(spec)
    record = toy.searched(spec, bench)
    chosen = choose(record, bench, toy.Listener())
    record.finish(summarize(record, spec, bench.tasks, chosen).to_json())


def test_finished_study_has_a_page_and_a_text(mergetune: Command, folder: Path) -> None:
    finish(folder)
    code, out, _ = mergetune("report", folder)
    page, text = (folder / "results" / name for name in ("report.html", "report.md"))
    assert code == 0
    assert out.splitlines() == [f"{page}: written", f"{text}: written"]
    assert "short" in words(tree(page.read_text(encoding="utf-8")))
    assert text.read_text(encoding="utf-8").startswith("# short\n")


def test_study_that_goes_on_has_a_page_only(mergetune: Command, folder: Path) -> None:
    code, out, _ = mergetune("report", folder / "study.yaml", "--json")
    assert code == 0
    page = folder / "results" / "report.html"
    assert json.loads(out) == {"study": "short", "files": [str(page)]}
    assert "not finished" in words(tree(page.read_text(encoding="utf-8")))


def test_report_of_a_storage_stands_beside_it_or_where_one_says(
    mergetune: Command, folder: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{folder / 'results' / 'study.db'}"
    assert mergetune("report", url)[0] == 0
    assert (folder / "results" / "report.html").is_file()
    assert mergetune("report", url, "--out", tmp_path / "there", "--price", "2")[0] == 0
    assert "at 2 an hour" in (tmp_path / "there" / "report.html").read_text(encoding="utf-8")


def test_report_is_not_written_over_that_of_another_study(
    mergetune: Command, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"study": "other"}), encoding="utf-8")
    code, _, err = mergetune("report", folder, "--out", tmp_path)
    assert code == 1
    assert "holds what study 'other' found" in err


def test_study_that_has_not_begun_has_no_report(mergetune: Command, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(toy.SHORT, encoding="utf-8")
    code, _, err = mergetune("report", tmp_path)
    assert code == 1
    assert "no such file; `mergetune run` the study first" in err


def test_negative_price_is_bad_usage(mergetune: Command, folder: Path) -> None:
    assert mergetune("report", folder, "--price", "-1")[0] == 2

"""STUDIES.md: its program reads what mergetune wrote, and it names everything that is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.report.looks import looks_of
from search.report.select import choose
from search.report.summarize import summarize
from search.spec.study_file import StudySpec
from search.storage import chunks
from search.storage.about import FORMAT
from search.storage.locate import open_study
from search.storage.study_record import Record
from tests.search import toy

TEXT = (Path(__file__).parents[3] / "STUDIES.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`.*?) \|", TEXT, re.MULTILINE)
NAMED = {name for row in ROWS for name in re.findall(r"`([^`]+)`", row)}
Study = Callable[..., StudySpec]


def finished(spec: StudySpec) -> Record:
    """Run a study to its end; races are on, so that some trials are stopped."""
    bench = toy.Toy(spec)
    record = toy.searched(spec, bench)
    found = choose(record, bench, toy.Listener())
    record.keep_looks(looks_of(record, found.winner, len(bench.tasks.pools["report"])))
    record.finish(summarize(record, spec, bench.tasks, found).to_json())
    return record


@pytest.mark.parametrize("most", [chunks.MOST, 200])
def test_its_program_reads_all_scores_of_a_study(
    study: Study,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(chunks, "MOST", most)
    spec = study(trials=4, race={"margin": 0.0, "error": 0.4})
    record = finished(spec)
    monkeypatch.chdir(spec.folder)
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(program.splitlines()) <= 25  # as the formatter has them
    names: dict[str, Any] = {"print": lambda *said: told.append(said)}
    told: list[Any] = []
    exec(compile(program, "STUDIES.md", "exec"), names)
    capsys.readouterr()
    ids = record.item_ids("search")
    assert [(number, value, scores) for number, value, _, scores in told] == [
        (t.number, t.value, {k: dict(zip(ids[k], x)) for k, x in t.search.scores.items()})  # noqa: B905
        for t in record.trials
    ]
    stored = optuna.load_study(study_name=None, storage=spec.storage)
    assert any("/" in key for key in stored.user_attrs) == (most == 200)


def test_it_names_every_attribute_that_a_study_has(study: Study) -> None:
    spec = study(trials=2)
    record = finished(spec)
    stored = optuna.load_study(study_name=None, storage=spec.storage)
    keys = {key.partition(":")[0] for key in stored.user_attrs}
    for attributes in (stored.user_attrs["mergetune"], *(t.user_attrs for t in stored.trials)):
        keys |= attributes.keys()
    assert keys - {name.partition(":")[0] for name in NAMED} == set()
    assert {"scores", "items", "select", "report", "looks", "pools"} <= keys
    assert f"format {FORMAT}" in TEXT
    assert open_study(spec.storage)[1].trials == record.trials

"""Studies of earlier formats are opened, read by every command, gone on with and reproduced.

``format1/study.db`` is a finished study that version 0.1.0 wrote, with the quickstart's models.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from merge_core.errors import StorageError
from search.run.study import run
from search.storage import about as formats
from search.storage.locate import open_study
from search.storage.packed import packed_ids
from search.storage.study_record import Record
from search.trial.budget import Change
from tests.search.real import QUICKSTART, Quiet

HERE = Path(__file__).parent / "format1"
POOLS = ("search", "select", "report")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of a study of format 1, beside the quickstart's models and tasks."""
    for name in ("models", "tasks"):
        (tmp_path / name).symlink_to(QUICKSTART / name)
    shutil.copy(HERE / "study.yaml", tmp_path)
    (tmp_path / "results").mkdir()
    shutil.copy(HERE / "study.db", tmp_path / "results")
    return tmp_path


def attributes(folder: Path) -> dict[str, Any]:
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{folder}/results/study.db")
    return study.user_attrs


def test_a_study_of_format_1_is_read_as_if_it_were_of_now(old: Path) -> None:
    _, record = open_study(str(old))
    stored = attributes(old)["mergetune"]
    assert record.about is not None
    assert (stored["format"], record.about["format"]) == (1, 1)
    assert len(record.trials) == 13
    for pool in POOLS:
        ids = record.item_ids(pool)
        assert {task: list(x) for task, x in ids.items()} == stored["pools"][pool]
        assert {task: x["items"] for task, x in record.about["pools"][pool].items()} == {
            task: len(x) for task, x in ids.items()
        }
    assert all(len(record.trials[n].measured["select"].scores) == 2 for n in (1, 2, 3, 5))


COMMANDS = [
    *(("trials",), ("best",), ("report", "--out", "pages"), ("export", "model", "--trial", "2")),
    ("reproduce", "--trial", "best"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.slow
def test_every_command_reads_a_study_of_format_1(
    old: Path, command: tuple[str, ...], mergetune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(old)
    before = (old / "results" / "study.db").read_bytes()
    name, *more = command
    code, out, err = mergetune(name, ".", *more, "--json")
    assert (code, err) == (0, "")
    if name == "reproduce":
        assert [row["verdict"] for row in json.loads(out)] == ["identical"]
    assert (old / "results" / "study.db").read_bytes() == before


@pytest.mark.slow
def test_a_study_of_format_1_is_gone_on_with_in_the_format_of_now(old: Path) -> None:
    _, before = open_study(str(old))
    ids = {pool: before.item_ids(pool) for pool in POOLS}
    assert run(old, Quiet(), lambda: False, Change(more=2)) is not None
    stored = attributes(old)
    assert stored["mergetune"]["format"] == formats.FORMAT
    assert stored["mergetune"]["pools"] == formats.pools_of(ids)
    spec, record = open_study(str(old))
    assert {pool: record.item_ids(pool) for pool in POOLS} == ids
    for trial, was in zip(record.trials, before.trials, strict=False):
        assert trial.measured.items() >= was.measured.items()
        assert replace(trial, measured={}) == replace(was, measured={})
    with sqlite3.connect(old / "results" / "study.db") as database:
        query = (
            "select value_json from trial_user_attributes where key = 'scores' order by trial_id"
        )
        kinds = ["float64" in json.loads(text) for (text,) in database.execute(query)]
    assert kinds == [number >= 13 for number in range(len(record.trials))]
    assert len(kinds) >= 15
    assert run(old, Quiet(), lambda: False) is not None  # and the one of now is opened as its own
    assert spec.name == "small"


def test_a_newer_format_is_refused_with_a_line_that_says_so(memory: Record) -> None:
    study = memory._stored._study
    study.set_user_attr("mergetune", {"format": 3, "of": "later"})
    study.add_trial(optuna.trial.create_trial(value=1.0))  # nor is anything of it looked at
    rule = (
        r"^study '.*' in memory has format 3, and this version of mergetune knows 1 to 2; install"
    )
    with pytest.raises(StorageError, match=rule):
        Record(study, "memory")


@pytest.mark.parametrize("found", [None, "2", True, 1.0])
def test_a_format_that_is_no_number_is_damage(memory: Record, found: Any) -> None:
    study = memory._stored._study
    study.set_user_attr("mergetune", {"format": found})
    with pytest.raises(StorageError, match=r"is damaged: mergetune\.\w+: "):
        Record(study, "memory")


@pytest.fixture
def begun(memory: Record) -> Record:
    ids = {"search": {"a": ["x", "y"]}, "select": {"a": ["z"]}}
    about = {"study": {}, "parents": {}, "tasks": {}, "pools": formats.pools_of(ids)}
    memory.begin({**about, "baselines": {}, "threads": 1, "folder": "."}, ids)
    return memory


def test_ids_are_in_an_attribute_of_their_own_and_their_digests_in_what_all_share(
    begun: Record,
) -> None:
    study = begun._stored._study
    assert [*study.user_attrs] == ["items", "mergetune"]  # a kill between the two begins nothing
    digest = hashlib.sha256(b'["x", "y"]').hexdigest()
    stored = study.user_attrs["mergetune"]["pools"]["search"]["a"]
    assert stored == {"items": 2, "digest": digest}
    again = Record(study, "memory")
    assert again.item_ids("search") == {"a": ("x", "y")}
    assert again.item_ids("report") == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda study: study.set_user_attr("items", None),
        lambda study: study.set_user_attr("items", {"json": "x"}),
        lambda study: study.set_user_attr(
            "items", packed_ids({"search": {"a": ["y", "x"]}, "select": {"a": ["z"]}})
        ),
        lambda study: study.set_user_attr("items", packed_ids({})),
    ],
)
def test_ids_that_are_damaged_are_one_line_when_they_are_asked_for(
    begun: Record, change: Any
) -> None:
    study = begun._stored._study
    change(study)
    again = Record(study, "memory")
    with pytest.raises(StorageError, match=r"^study '.*' in memory is damaged: items") as told:
        again.item_ids("search")
    assert "\n" not in str(told.value)

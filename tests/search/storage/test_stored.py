"""What a storage cannot do is one line that names it, whatever broke there and where it is read."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

from merge_core.errors import MergeError, StorageError
from search.report.select import choose
from search.report.summarize import summarize
from search.run.resume import open_for
from search.spec.study_file import StudySpec
from search.storage import stored
from search.storage.lease import WRITER
from search.storage.locate import open_study, winner
from search.storage.open import open_record
from search.storage.packed import packed_scores
from tests.search import toy

Change = Callable[[sqlite3.Connection], object]


@pytest.fixture
def spec(study: Callable[..., StudySpec]) -> StudySpec:
    return study(toy.SHORT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a finished study; copy it."""
    spec = toy.spec_of(toy.SHORT, tmp_path_factory.mktemp("finished"))
    bench = toy.Toy(spec)
    record = toy.searched(spec, bench)
    chosen = choose(record, bench, toy.Listener())
    record.finish(summarize(record, spec, bench.tasks, chosen).to_json())
    return spec.results / "study.db"


@pytest.fixture
def file(spec: StudySpec, finished: Path) -> Path:
    """The database of a finished study."""
    return Path(shutil.copy(finished, spec.results / "study.db"))


def attribute(of: str, key: str, value: Any) -> Change:
    """Change an attribute of trial 2, or of the study; None takes it away."""
    table, which = f"{of}_user_attributes", "and trial_id = 3" if of == "trial" else ""

    def change(database: sqlite3.Connection) -> None:
        where = f"{table} where key = ? {which}"
        assert database.execute(f"select count(*) from {where}", [key]).fetchone() == (1,)
        if value is None:
            database.execute(f"delete from {where}", [key])
        else:
            text = value if isinstance(value, str) and value[:1] == "{" else json.dumps(value)
            database.execute(
                f"update {table} set value_json = ? where key = ? {which}", [text, key]
            )

    return change


KINDS = (1, "text", [], {"a": "b"}, "{broken")
DAMAGED = [
    *[("trial", key, x) for key in ("scores", "seconds", "recipe") for x in (None, *KINDS)],
    *[("trial", "weights_digest", x) for x in (None, 1, [], {}, "{broken")],
    *[("trial", key, x) for key in ("stderr",) for x in ("text", [], "{broken")],
    ("trial", "scores", {"gain": [0.5]}),
    ("trial", "scores", packed_scores({"gain": [0.5] * 4})),
    ("trial", "scores", {"items": {"gain": 5}, "float64": "eNpjYAACAAAFAAE"}),
    ("trial", "scores", {"chunks": 2, "digest": "00ff"}),
    ("trial", "scores", {"gain": [0.5, 0.5, 0.5, 0.5, "x"]}),
    *[("study", key, x) for key in ("mergetune", "select:1") for x in KINDS],
    ("study", "summary", "{broken"),
]


@pytest.mark.parametrize(("of", "key", "value"), DAMAGED)
@pytest.mark.slow
def test_damaged_attribute_is_one_line_for_reading_and_for_going_on(
    spec: StudySpec, file: Path, of: str, key: str, value: Any
) -> None:
    damaged(file, attribute(of, key, value))
    before = file.read_bytes()
    for use in (lambda: open_study(spec.storage), lambda: open_for(spec).about):
        with pytest.raises(MergeError, match=r"damaged|not written by mergetune") as told:
            use()
        assert "\n" not in str(told.value)
    assert file.read_bytes() == before


def damaged(file: Path, change: Change) -> None:
    with sqlite3.connect(file) as database:
        change(database)
    database.close()


@pytest.mark.parametrize("value", [{}, {"winner": None}, {"winner": {"trial": "x"}}])
def test_a_summary_without_a_winner_is_one_line_that_says_how_it_is_mended(
    spec: StudySpec, file: Path, value: Any
) -> None:
    damaged(file, attribute("study", "summary", value))
    with pytest.raises(StorageError, match="names no winner; run it again"):
        winner(open_study(spec.storage)[1])


@pytest.mark.parametrize("value", [1, "x", [], {}, {"host": "x"}])
def test_a_lease_that_is_none_bars_nobody(spec: StudySpec, file: Path, value: Any) -> None:
    record = open_for(spec)
    record._stored.set_small(WRITER, value)
    with record.writing():
        pass


@pytest.mark.parametrize("size", [100, 4096, 30000, 60000])
def test_a_file_that_was_cut_is_one_line(spec: StudySpec, file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])
    for use in (lambda: open_study(spec.storage), lambda: open_for(spec).about):
        with pytest.raises(MergeError) as told:
            use()
        assert "\n" not in str(told.value)
        assert str(file) in str(told.value)


@pytest.mark.parametrize("table", ["studies", "trial_values", "trial_user_attributes"])
def test_a_table_that_is_gone_is_one_line(spec: StudySpec, file: Path, table: str) -> None:
    damaged(file, lambda database: database.execute(f"drop table {table}"))
    with pytest.raises(MergeError) as told:
        open_study(spec.storage)
    assert "\n" not in str(told.value)


def locked(*_: object) -> Any:
    cause = OperationalError("insert", {}, sqlite3.OperationalError("database is locked"))
    raise StorageInternalError("long words of Optuna") from cause


def test_a_commit_that_meets_a_lock_is_tried_again(
    spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    record = open_for(spec, said.append)
    monkeypatch.setattr(stored, "PAUSE", 0)
    tries, real = iter([locked, locked]), record._stored._study.set_user_attr
    monkeypatch.setattr(
        record._stored._study, "set_user_attr", lambda *said: next(tries, real)(*said)
    )
    record._stored.set("key", 1)
    assert record._stored.attributes()["key"] == 1
    assert [line.partition(": ")[2][:5] for line in said] == ["away ", "back "]


def test_a_run_that_is_to_end_waits_for_no_storage(
    spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    record = open_for(spec, said.append, lambda: True)
    monkeypatch.setattr(record._stored._study, "set_user_attr", locked)
    with pytest.raises(StorageError, match=r"cannot be written: database is locked"):
        record._stored.set("key", 1)
    assert len(said) == 1


def test_a_commit_whose_answer_was_lost_is_not_done_twice(
    spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = open_for(spec)
    study, add = record._stored._study, record._stored._study.add_trial

    def lost(trial: optuna.trial.FrozenTrial) -> None:
        add(trial)
        locked()

    monkeypatch.setattr(stored, "PAUSE", 0)
    monkeypatch.setattr(study, "add_trial", lost)
    record._stored.add(optuna.trial.create_trial(value=1.0), 0)
    assert len(study.trials) == 1
    with pytest.raises(MergeError, match="another process writes it"):
        record._stored.add(optuna.trial.create_trial(value=1.0), 0)


def test_a_lock_that_stays_is_one_line_that_says_so(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_database, tmp_path / "x.db")
    monkeypatch.setattr(stored, "PATIENCE", 0.2)
    monkeypatch.setattr(stored, "PAUSE", 0.1)
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("begin exclusive")
    said: list[str] = []
    url = f"sqlite:///{tmp_path}/x.db?timeout=0.05"
    with pytest.raises(StorageError, match=r"^storage sqlite.*x\.db.*: .*locked; another program"):
        open_record(url, "x", create=True, notice=said.append)
    (line,) = said
    assert line.startswith(f"storage {url}: away (said database is locked; another program")
    with pytest.raises(StorageError, match="locked"):
        open_record(url, "x", notice=said.append)  # a command that reads does not wait
    assert len(said) == 1
    other.close()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("database or disk is full", "make room"),
        ("attempt to write a readonly database", "make file and folder writable"),
        ("disk I/O error", "look after the disk"),
    ],
)
def test_what_a_disk_refuses_is_answered_with_what_to_do(
    spec: StudySpec, monkeypatch: pytest.MonkeyPatch, said: str, advice: str
) -> None:
    record = open_for(spec)

    def refuse(*_: object) -> None:
        raise OperationalError("insert", {}, sqlite3.OperationalError(said))

    monkeypatch.setattr(record._stored._study, "set_user_attr", refuse)
    with pytest.raises(StorageError, match=rf"cannot be written: {said}; {advice}"):
        record.begin({})


def test_a_study_that_minimizes_is_not_ours(spec: StudySpec) -> None:
    optuna.create_study(storage=spec.storage, study_name=spec.name, direction="minimize")
    with pytest.raises(MergeError, match="was not written by mergetune"):
        open_for(spec)

"""What is stored is whole, comes back as it was, and is Optuna's to read."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from merge_core.errors import MergeError, UnknownNameError
from merge_core.recipe.schema import Conditional, Recipe, Source
from search.storage.about import pools_of
from search.storage.open import open_record
from search.storage.study_record import Record
from search.trial.trial import Measurement, Trial
from tests.search import toy

SPACE = {
    "weight": FloatDistribution(0.0, 1.5),
    "density": FloatDistribution(0.1, 1.0, step=0.05),
    "normalize": CategoricalDistribution((True, False)),
}
RECIPE = Recipe(
    "ties",
    (Source("one", (("density", (0.1 + 0.2, 1)), ("weight", (Conditional("mlp", 1 / 3),)))),),
    "base",
    (("normalize", True), ("weight", 0.5)),
    dtype="bfloat16",
    seed=7,
)
PARAMS = {"weight": 1 / 3, "density": 0.1 + 9 * 0.05, "normalize": False}
SEARCHED = Trial(
    number=0,
    state="complete",
    recipe=RECIPE,
    params=PARAMS,
    weights_digest="00ff",
    value=1 / 7,
    stderr=float("inf"),
    same_as=0,
    measured={
        "search": Measurement(
            {"b": [0.1 + 0.2, 1.0, -2.5e-300], "a": [0.0]},
            {"build": 0.25, "model": 1.5, "other": 0.0},
        )
    },
)
BASELINE = Trial(1, "complete", RECIPE, baseline="parent:one", value=0.0, stderr=0.5)
FAILED = Trial(2, "failed", RECIPE, params=PARAMS, error="Traceback ...\nValueError: é\n")

ABOUT = {
    "format": 2,
    "study": {"a": [1, 2]},
    "parents": {"base": "00ff"},
    "tasks": {"a": "one"},
    "pools": pools_of({"search": {"a": ["a-0"]}}),
    "baselines": {},
    "threads": 1,
    "folder": "..",
}


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """Collects the first word of every statement, and every commit."""
    words: list[str] = []

    def statement(*args: Any) -> None:
        words.append(args[2].split()[0])

    def commit(_: object) -> None:
        words.append("commit")

    listeners = {"before_cursor_execute": statement, "commit": commit}
    for name, listener in listeners.items():
        sqlalchemy.event.listen(sqlalchemy.Engine, name, listener)
    yield words
    for name, listener in listeners.items():
        sqlalchemy.event.remove(sqlalchemy.Engine, name, listener)


def writes(words: list[str]) -> int:
    """Return how many commits have anything to commit."""
    groups = " ".join(words).split("commit")
    return sum("INSERT" in group or "UPDATE" in group for group in groups)


def test_settled_trials_come_back_from_sqlite_as_they_were(record: Record) -> None:
    for trial in (SEARCHED, BASELINE, FAILED):
        record.add(trial, SPACE)
    assert record.trials == [SEARCHED, BASELINE, FAILED]
    again = open_record(record.url, "toy").trials
    assert again == [SEARCHED, BASELINE, FAILED]
    assert again[0].params["normalize"] is False
    assert list(again[0].search.scores) == ["b", "a"]


def test_what_is_stored_is_json_that_every_reader_takes(record: Record) -> None:
    record.add(SEARCHED, SPACE)
    assert SEARCHED.stderr == float("inf")
    with sqlite3.connect(record.url.removeprefix("sqlite:///")) as database:
        found = database.execute("select value_json from trial_user_attributes").fetchall()
    assert len(found) > 4
    for (text,) in found:
        json.loads(text, parse_constant=pytest.fail)
    (again,) = open_record(record.url, "toy").trials
    assert again.stderr == float("inf")


def test_the_file_opens_with_plain_optuna(record: Record) -> None:
    for trial in (SEARCHED, BASELINE, FAILED):
        record.add(trial, SPACE)
    study = optuna.load_study(storage=record.url, study_name="toy")
    assert study.best_trial.number == 0
    assert (study.best_value, study.best_params) == (1 / 7, PARAMS)
    assert study.best_trial.distributions == SPACE
    states = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL]
    assert [(t.number, t.state) for t in study.trials] == list(enumerate(states))


def test_optunas_start_and_end_of_a_trial_are_as_far_apart_as_it_took(record: Record) -> None:
    before = datetime.now()  # noqa: DTZ005 as Optuna has it
    record.add(SEARCHED, SPACE)
    (trial,) = optuna.load_study(storage=record.url, study_name="toy").trials
    assert trial.duration == timedelta(seconds=0.25 + 1.5)
    assert trial.datetime_complete is not None
    assert timedelta() <= trial.datetime_complete - before < timedelta(seconds=60)


def test_numbers_are_the_order_in_which_trials_are_added(record: Record) -> None:
    for number in range(12):
        record.add(Trial(number, "complete", RECIPE, value=float(-number)), SPACE)
    again = open_record(record.url, "toy").trials
    assert [(t.number, t.value) for t in again] == [(n, float(-n)) for n in range(12)]


def test_a_settled_trial_is_one_transaction(record: Record, heard: list[str]) -> None:
    record.add(SEARCHED, SPACE)
    assert heard.count("INSERT") > 5
    assert writes(heard) == 1


def test_what_all_trials_share_is_one_transaction(record: Record, heard: list[str]) -> None:
    record.begin(ABOUT)
    assert writes(heard) == 1


def test_scores_on_another_pool_are_one_transaction(record: Record, heard: list[str]) -> None:
    record.add(SEARCHED, SPACE)
    heard.clear()
    record.add_measured("select", 0, Measurement({"a": [0.5]}, {"build": 1.0}))
    assert writes(heard) == 1


@pytest.mark.parametrize(
    ("event", "count"),
    [("commit", 1), *(("before_cursor_execute", n) for n in (1, 3, 5, 6))],
)
def test_a_kill_in_the_middle_of_adding_leaves_the_earlier_trials_and_no_half_one(
    record: Record, event: str, count: int
) -> None:
    record.add(SEARCHED, SPACE)

    def add() -> None:
        found = open_record(record.url, "toy")
        toy.die_at(event, count)
        found.add(BASELINE, SPACE)

    assert toy.end_of_child(add) == -signal.SIGKILL
    again = open_record(record.url, "toy")
    assert again.trials == [SEARCHED]
    again.add(BASELINE, SPACE)
    assert open_record(record.url, "toy").trials == [SEARCHED, BASELINE]


def test_a_study_that_mergetune_did_not_write_is_refused(url: str) -> None:
    study = optuna.create_study(storage=url, study_name="theirs")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    rule = r"^trial 0 was not written by mergetune, .*: recipe: expected a recipe \(a mapping\)"
    with pytest.raises(MergeError, match=rule):
        open_record(url, "theirs")


def test_a_damaged_recipe_is_named_with_what_is_wrong(url: str) -> None:
    study = optuna.create_study(storage=url, study_name="toy")
    attributes = {"recipe": {**RECIPE.plain(), "merge_method": "tyes"}}
    study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs=attributes))
    with pytest.raises(MergeError, match=r"damaged: recipe\.merge_method: no merge method 'tyes'"):
        open_record(url, "toy")


@pytest.mark.parametrize("number", [-1, 1, 99])
def test_an_unknown_trial_is_answered_with_those_there_are(record: Record, number: int) -> None:
    record.add(SEARCHED, SPACE)
    with pytest.raises(UnknownNameError, match=f"'toy' has no trial {number}; it has 0 to 0"):
        record.trial(number)
    assert record.trial(0) is SEARCHED


def test_a_record_without_trials_has_no_trial_0(record: Record) -> None:
    with pytest.raises(UnknownNameError, match="'toy' has no trial 0; it has none"):
        record.trial(0)


def test_several_studies_share_a_storage(url: str) -> None:
    for name in ("a", "b"):
        found = open_record(url, name, create=True)
        found.add(Trial(0, "complete", RECIPE, baseline=name, value=0.5), SPACE)
    assert [open_record(url, name).trials[0].baseline for name in ("a", "b")] == ["a", "b"]


def test_of_several_studies_one_must_be_named(url: str) -> None:
    for name in ("a", "b"):
        open_record(url, name, create=True)
    with pytest.raises(
        UnknownNameError, match=r"study\.db has several studies, it has a, b; say which"
    ):
        open_record(url)
    with pytest.raises(UnknownNameError, match=r"study\.db has no study 'c'; it has a, b"):
        open_record(url, "c")


def test_the_only_study_of_a_storage_needs_no_name(record: Record) -> None:
    assert open_record(record.url).name == "toy"


def test_a_storage_without_a_study_says_so(url: str) -> None:
    with pytest.raises(UnknownNameError, match=r"study\.db has no study$"):
        open_record(url)


def test_reading_makes_no_file(tmp_path: Path) -> None:
    file = tmp_path / "results" / "none.db"
    with pytest.raises(UnknownNameError, match=r"none\.db: no such file; `mergetune run` the stud"):
        open_record(f"sqlite:///{file}", "toy")
    assert not file.parent.exists()


def test_creating_makes_folder_file_and_study_and_then_opens_them(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'results' / 'study.db'}"
    open_record(url, "toy", create=True).add(SEARCHED, SPACE)
    assert open_record(url, "toy", create=True).trials == [SEARCHED]


def test_what_all_trials_share_is_none_until_the_study_begins(record: Record) -> None:
    assert open_record(record.url).about is None
    record.begin({**ABOUT, "study": {"x": [1, None, 0.5]}, "of later versions": 1})
    found = {**ABOUT, "study": {"x": [1, None, 0.5]}, "of later versions": 1}
    assert record.about == open_record(record.url).about == found


def test_the_studys_folder_moves_with_its_database(tmp_path: Path, empty_database: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name / "results").mkdir(parents=True)
    shutil.copy(empty_database, tmp_path / "here/results/study.db")
    record = open_record(f"sqlite:///{tmp_path}/here/results/study.db", "toy", create=True)
    record.begin({**ABOUT, "folder": record.path_to(tmp_path / "here")})
    shutil.copy(tmp_path / "here/results/study.db", tmp_path / "there/results/study.db")
    moved = open_record(f"sqlite:///{tmp_path}/there/results/study.db")
    assert record.folder() == tmp_path / "here"
    assert moved.folder() == tmp_path / "there"


def test_a_storage_that_is_no_file_keeps_the_folder_as_it_is(memory: Record) -> None:
    memory.begin({**ABOUT, "folder": memory.path_to(Path("/data/zoo"))})
    assert memory.folder() == Path("/data/zoo")


def test_scores_of_each_pool_come_back_by_trial(record: Record) -> None:
    for number in range(12):
        record.add(replace(SEARCHED, number=number), SPACE)
    one, two = (Measurement({"a": [x]}, {"build": x}) for x in (0.25, 1 / 3))
    record.add_measured("select", 3, one)
    record.add_measured("select", 11, two)
    record.add_measured("report", 3, two)
    again = open_record(record.url)
    assert again.trials == record.trials
    assert toy.measured(again, "select") == {3: one, 11: two}
    assert toy.measured(again, "report") == {3: two}


def test_a_summary_is_stored_once_and_replaced_if_it_differs(
    record: Record, heard: list[str]
) -> None:
    assert record.summary is None
    record.finish({"winner": {"trial": 3, "mean": 0.1 + 0.2}})
    record.finish({"winner": {"trial": 3, "mean": 0.1 + 0.2}})
    assert writes(heard) == 1
    record.finish({"winner": {"trial": 4}})
    assert open_record(record.url).summary == {"winner": {"trial": 4}}


def test_a_row_has_the_keys_that_scripts_rely_on() -> None:
    assert SEARCHED.row() == {
        "number": 0,
        "state": "complete",
        "baseline": None,
        "params": PARAMS,
        "recipe_digest": RECIPE.digest(),
        "weights_digest": "00ff",
        "value": 1 / 7,
        "stderr": float("inf"),
        "items": 4,
    }

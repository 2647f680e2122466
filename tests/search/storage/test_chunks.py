"""What is too long for a column is cut; a kill leaves the old value or the new one."""

from __future__ import annotations

import base64
import random
import signal
import sqlite3
from typing import Any

import pytest

from merge_core.errors import StorageError
from merge_core.recipe.schema import Recipe, Source
from search.storage.chunks import MOST, cut, joined
from search.storage.open import open_record
from search.storage.study_record import Record
from search.trial.trial import Measurement, Trial
from tests.search import toy

RECIPE = Recipe("linear", (Source("one", (("weight", 1.0),)),))
COLUMN = 65_535  # bytes that MySQL's TEXT takes


def text(seed: int, size: int = 150_000) -> str:
    """Return a text that no compression shortens by much."""
    return base64.b64encode(random.Random(seed).randbytes(size)).decode()


def columns(record: Record, table: str) -> dict[str, str]:
    with sqlite3.connect(record.url.removeprefix("sqlite:///")) as database:
        return dict(database.execute(f"select key, value_json from {table}"))


@pytest.mark.parametrize("size", [MOST - 2, MOST - 1])
def test_from_one_character_too_many_on_a_value_is_cut(size: int) -> None:
    value = {"a": "x" * size, "b": 1}
    stored = cut({"key": value["a"], "b": 1})
    assert (stored["key"] == value["a"]) == (size == MOST - 2)
    assert joined(stored) == {"key": value["a"], "b": 1}


def test_an_attribute_named_like_a_piece_of_none_is_left_alone() -> None:
    for attributes in ({"select:3": {"chunks": 2}}, {"a/b": 1, "c/0": [2]}):
        assert joined(attributes) == attributes


@pytest.mark.parametrize("value", [text(0), {"é": ["\\" * 50_000, '"' * 50_000, "ü" * 20_000]}])
def test_no_column_is_longer_than_mysql_takes(record: Record, value: Any) -> None:
    record.finish({"text": value})
    record.add(Trial(0, "failed", RECIPE, error=text(1)), {})
    for table in ("study_user_attributes", "trial_user_attributes"):
        assert all(len(x.encode()) <= COLUMN for x in columns(record, table).values())
    again = open_record(record.url)
    assert again.summary == {"text": value}
    assert again.trials[0].error == text(1)


def test_scores_of_many_items_are_cut_too(record: Record) -> None:
    stream = random.Random(0)
    found = Measurement({"t": [stream.random() for _ in range(20_000)]}, {"build": 1.0})
    record.add(Trial(0, "complete", RECIPE, value=0.5, measured={"search": found}), {})
    record.add_measured("select", 0, found)
    assert open_record(record.url).trials[0].measured == {"search": found, "select": found}
    assert sum(k.startswith("scores/") for k in columns(record, "trial_user_attributes")) > 2


def test_pieces_of_earlier_values_are_emptied(record: Record) -> None:
    for seed in (1, 2):
        record.finish({"text": text(seed)})
    stored = columns(record, "study_user_attributes")
    assert sum(value != "null" for value in stored.values()) == 1 + 4
    record.finish({"short": 1})
    stored = columns(record, "study_user_attributes")
    assert [key for key, value in stored.items() if value != "null"] == ["summary"]
    assert open_record(record.url).summary == {"short": 1}


COMMITS = 4 + 1 + 4  # four pieces, the key, four pieces of before


@pytest.mark.parametrize("commit", [1, 3, 4, 5, 6, 9])
def test_a_kill_between_two_commits_leaves_the_old_value_or_the_new_one(
    record: Record, commit: int
) -> None:
    old, new, other = ({"text": text(seed)} for seed in (1, 2, 3))
    record.finish(old)

    def replace() -> None:
        found = open_record(record.url, "toy")
        set_ = found._stored.set
        left = iter(range(commit - 1, -1, -1))

        def set_or_die(key: str, value: Any) -> None:
            set_(key, value) if next(left) else toy.die()

        found._stored.set = set_or_die  # type: ignore[method-assign]
        found.finish(new)

    assert toy.end_of_child(replace) == -signal.SIGKILL
    again = open_record(record.url)
    assert again.summary == (old if commit <= 5 else new)
    again.finish(other)
    assert open_record(record.url).summary == other
    kept = [k for k, x in columns(record, "study_user_attributes").items() if x != "null"]
    assert len(kept) == 1 + 4


def pieces(record: Record) -> list[str]:
    return sorted(key for key in columns(record, "study_user_attributes") if "/" in key)


@pytest.mark.parametrize("damage", ["null", '"x"', "1", '"eNoDAAAAAAE="'])
def test_a_piece_that_is_damaged_is_one_line(record: Record, damage: str) -> None:
    record.finish({"text": text(1)})
    with sqlite3.connect(record.url.removeprefix("sqlite:///")) as database:
        change = "update study_user_attributes set value_json = ? where key = ?"
        database.execute(change, [damage, pieces(record)[1]])
    rule = r"^study 'toy' in sqlite.* is damaged: summary: its piece"
    with pytest.raises(StorageError, match=rule) as told:
        open_record(record.url)
    assert "\n" not in str(told.value)


def test_a_piece_that_is_gone_from_a_trial_is_one_line(record: Record) -> None:
    record.add(Trial(0, "failed", RECIPE, error=text(1)), {})
    with sqlite3.connect(record.url.removeprefix("sqlite:///")) as database:
        database.execute("delete from trial_user_attributes where key like 'error/%/1'")
    with pytest.raises(StorageError, match=r"^trial 0 .* damaged: error: its piece error/.*/1 is"):
        open_record(record.url)

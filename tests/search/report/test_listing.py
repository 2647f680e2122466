"""Trials as rows: in an order, with their knobs, as comma-separated values."""

from __future__ import annotations

import csv
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from merge_core.errors import UnknownNameError
from search.report.listing import KEYS, Listing
from search.spec.study_file import StudySpec
from search.storage.study_record import Record
from tests.search import toy

Study = Callable[..., StudySpec]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return toy.in_memory(toy.spec_of(toy.STUDY, tmp_path_factory.mktemp("listing")))


def cells(found: Listing) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(found.csv())))


def test_the_best_value_is_first_and_what_has_none_last(record: Record) -> None:
    values = [t.value for t in Listing.of_record(record, sort="value").trials]
    assert values == sorted((t.value for t in record.trials), reverse=True)  # type: ignore[type-var]
    found = Listing.of_record(record, sort="value", top=2)
    assert ([t.value for t in found.trials], found.of) == (values[:2], len(record.trials))
    knob = found.knobs[0]
    by_knob = [t.params.get(knob) for t in Listing.of_record(record, sort=knob).trials]
    drawn = [x for x in by_knob if x is not None]
    assert drawn == sorted(drawn)
    assert by_knob[: len(drawn)] == drawn
    assert len(drawn) < len(by_knob)
    names = [t.baseline for t in Listing.of_record(record, sort="baseline").trials if t.baseline]
    assert names == sorted(names)


def test_an_unknown_key_or_knob_is_named_with_a_near_one(record: Record) -> None:
    with pytest.raises(UnknownNameError, match=r"got 'stder', did you mean 'stderr'\?"):
        Listing.of_record(record, sort="stder")
    with pytest.raises(UnknownNameError, match=r"no knob of study 'toy' is 'wieght\*'"):
        Listing.of_record(record, knobs=["wieght*"])


def test_comma_separated_values_hold_each_number_exactly_and_a_column_for_each_knob(
    record: Record,
) -> None:
    found = Listing.of_record(record)
    rows = cells(found)
    assert [*rows[0]] == [*KEYS, "weights_digest", "recipe_digest", *found.knobs]
    for row, trial in zip(rows, record.trials, strict=True):
        assert float(row["value"]) == trial.value
        assert int(row["number"]) == trial.number
        assert {k: float(row[k]) for k in found.knobs if row[k]} == trial.params
        assert row["baseline"] == (trial.baseline or "")
    some = Listing.of_record(record, knobs=["*/one/*"])
    assert [*some.knobs] == [x for x in found.knobs if "/one/" in x]
    assert some.hidden == len(found.knobs) - len(some.knobs) == 1


def test_a_spreadsheet_takes_no_text_for_a_formula() -> None:
    trial = toy.Trial(0, "failed", toy.Recipe("linear", ()), baseline="=cmd|'/c calc'!A0")
    row = cells(Listing("x", (trial,), 1, ("+knob",), 0))[0]
    assert row["baseline"] == "'=cmd|'/c calc'!A0"
    assert "'+knob" in row


def test_several_objectives_have_a_column_each(tmp_path: Path) -> None:
    text = toy.STUDY.replace(", weight: 0.5", "").replace("items:", "aggregate: apart\nitems:")
    record = toy.in_memory(toy.spec_of(text, tmp_path, sampler="tpe", trials=2))
    found = Listing.of_record(record)
    for row, trial, plain in zip(cells(found), record.trials, found.rows(), strict=True):
        assert (float(row["gain"]), float(row["loss"])) == trial.values
        assert plain["front"] == (trial.number in found.front)


def test_commands_show_write_and_sort_them(
    study: Study, mergetune: Callable[..., tuple[Any, str, str]], tmp_path: Path
) -> None:
    record = toy.searched(spec := study(trials=3))
    code, out, _ = mergetune("trials", spec.storage, "--sort", "value", "--top", "2")
    assert (code, out.count("complete")) == (0, 2)
    assert f"2 of {len(record.trials)} trials\n" in out
    assert "Best so far: trial " in out
    code, out, _ = mergetune("trials", spec.storage, "--csv", "-")
    assert out == Listing.of_record(record).csv()
    file = tmp_path / "trials.csv"
    code, said, _ = mergetune("trials", spec.storage, "--csv", file)
    assert (file.read_text(), said) == (out, f"{file}: {len(record.trials)} trials written\n")
    assert mergetune("trials", spec.storage, "--csv", "-", "--json")[0] == 2
    code, _, err = mergetune("trials", spec.storage, "--sort", "vlaue")
    assert (code, err.count("\n")) == (1, 1)

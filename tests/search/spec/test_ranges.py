"""Every rule for a range and for choices, each by its exact key path."""

from __future__ import annotations

from typing import Any

import pytest

from search.spec import ranges
from search.spec.ranges import Knob

PLACE = ("parameters", "t")
PER = "layer, tensor, a whole number of at least 1, or bands such as [[0, 3], [4, 11]]"


def problems_of(data: dict[str, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    knob = ranges.parse(data, PLACE, "here", found)
    assert (knob is None) == bool(found)
    return found


def knob_of(data: dict[str, Any]) -> Knob:
    found: list[tuple[str, str]] = []
    knob = ranges.parse(data, PLACE, "here", found)
    assert knob is not None, found
    return knob


@pytest.mark.parametrize(
    ("change", "path", "rule"),
    [
        ({"low": 2}, "here", "low must be below high, got low 2 and high 1"),
        ({"low": 1}, "here", "low must be below high, got low 1 and high 1"),
        ({"low": "0,1"}, "here.low", "expected a number, got '0,1'"),
        ({"high": True}, "here.high", "expected a number, got true"),
        ({"high": float("inf")}, "here.high", "expected a number, got inf"),
        ({"low": None}, "here.low", "required in a range"),
        ({"step": 0}, "here.step", "must be above 0 and fit the range, got 0"),
        ({"step": -0.1}, "here.step", "must be above 0 and fit the range, got -0.1"),
        ({"step": 0.95}, "here.step", "must be above 0 and fit the range, got 0.95"),
        ({"step": "x"}, "here.step", "expected a number, got 'x'"),
        ({"step": 0.4}, "here", "high must be low plus a whole number of steps of 0.4"),
        ({"log": 1}, "here.log", "expected true or false, got 1"),
        ({"log": True, "low": 0}, "here.log", "needs low above 0 and no step"),
        ({"log": True, "low": -1}, "here.log", "needs low above 0 and no step"),
        ({"log": True, "step": 0.1}, "here.log", "needs low above 0 and no step"),
        ({"per": 0}, "here.per", f"expected {PER}, got 0"),
        (
            {"per": "layers"},
            "here.per",
            f"expected {PER}, got 'layers', did you mean 'layer'?",
        ),
        ({"per": True}, "here.per", f"expected {PER}, got true"),
        ({"per": 2.0}, "here.per", f"expected {PER}, got 2.0"),
        ({"gradient": 1}, "here.gradient", "expected a whole number from 2 to 1000, got 1"),
        ({"gradient": "layer"}, "here.gradient", "expected a whole number from 2 to 1000, got 'la"),
        ({"per": []}, "here.per", f"expected {PER}, got a list"),
        ({"per": [0, 3]}, "here.per[0]", "expected [first layer, last layer], got 0"),
        ({"per": [[0, 1.0]]}, "here.per[0]", "expected [first layer, last layer], got a list"),
        (
            {"per": [[0, 3], [4, True]]},
            "here.per[1]",
            "expected [first layer, last layer], got a l",
        ),
        ({"per": [[1, 3]]}, "here.per[0]", "begins at layer 1; layer 0 is in no band"),
        ({"per": [[0, 3], [6, 9]]}, "here.per[1]", "begins at layer 6; layers 4 to 5 are in no ba"),
        ({"per": [[0, 3], [3, 9]]}, "here.per[1]", "begins at layer 3, which a band before it has"),
        (
            {"per": [[0, 3], [5, 4]]},
            "here.per[1]",
            "the first layer of a band comes before the last, got [5, 4]",
        ),
        ({"cosine": 0}, "here.cosine", "expected a whole number from 1 to 1000, got 0"),
        ({"cosine": "mean"}, "here.cosine", "expected a whole number from 1 to 1000, got 'mean'"),
        ({"cosine": 3, "log": True}, "here.log", "a sum of cosines has none; omit it, or use grad"),
        ({"cosine": 3, "step": 0.9}, "here.step", "a sum of cosines has none; omit it, or use gra"),
        ({"shape": "curve"}, "here.shape", "expected one of line, kernel, got 'curve'"),
        ({"shape": 3}, "here.shape", "expected one of line, kernel, got 3"),
        ({"start": 2}, "here.start", "must be in [0.1, 1], got 2"),
        ({"start": "x"}, "here.start", "expected a number, got 'x'"),
        ({"start": 0.4, "step": 0.45}, "here.start", "must be low plus a whole number of steps, g"),
        ({"per": 2, "gradient": 3}, "here", "has per and gradient; choose one"),
        (
            {"per": "tensor", "cosine": 2, "shape": "line"},
            "here",
            "has per and cosine and shape; choose one",
        ),
        ({"stepp": 0.1}, "here.stepp", "unknown key, did you mean 'step'?"),
        ({"colour": 1}, "here.colour", "unknown key"),
    ],
)
def test_one_wrong_key_of_a_range_is_one_problem_at_its_path(
    change: dict[str, Any], path: str, rule: str
) -> None:
    ((where, words),) = problems_of({"low": 0.1, "high": 1.0, **change})
    assert where == path
    assert words.startswith(rule)
    assert len(words) - len(rule) < 20  # nothing but the tail that was cut off above


@pytest.mark.parametrize(("missing", "given"), [("low", "high"), ("high", "low")])
def test_both_ends_of_a_range_are_required(missing: str, given: str) -> None:
    assert problems_of({given: 1}) == [(f"here.{missing}", "required in a range")]


def test_all_wrong_keys_of_one_range_come_at_once() -> None:
    found = problems_of({"low": 1, "high": True, "log": "yes", "per": 0, "hihg": 2})
    assert [path for path, _ in found] == ["here.high", "here.log", "here.per", "here.hihg"]


def test_all_values_that_do_not_fit_each_other_come_at_once() -> None:
    found = problems_of({"low": 0, "high": -1, "step": 0, "log": True, "per": 2, "gradient": 2})
    assert [path for path, _ in found] == ["here", "here.step", "here.log", "here"]


def test_all_bands_that_leave_layers_out_or_share_some_come_at_once() -> None:
    found = problems_of({"low": 0, "high": 1, "per": [[0, 3], [2, 5], [9, 8], [12, 15]]})
    assert [path for path, _ in found] == ["here.per[1]", "here.per[2]", "here.per[3]"]


def test_a_step_as_wide_as_the_range_fits_whatever_floats_make_of_the_difference() -> None:
    assert 0.2 > 0.3 - 0.1
    assert knob_of({"low": 0.1, "high": 0.3, "step": 0.2}).step == 0.2


@pytest.mark.parametrize("values", [[], [1], "ab", {"a": 1}, [1, [2]], [1, None]])
def test_choices_are_a_list_of_two_or_more_plain_values(values: Any) -> None:
    ((path, rule),) = problems_of({"choices": values})
    assert path == "here.choices"
    assert rule.startswith("expected a list of 2 to 100 values, got ")


def test_a_value_listed_twice_is_a_problem() -> None:
    assert problems_of({"choices": [1, 2, 1]}) == [("here.choices", "a value is listed twice")]


def test_a_start_is_one_of_the_choices() -> None:
    rule = "must be one of the choices, got 1"
    assert problems_of({"choices": [True, False], "start": 1}) == [("here.start", rule)]
    assert knob_of({"choices": [True, False], "start": False}).start is False


def test_true_and_1_are_two_choices() -> None:
    assert knob_of({"choices": [True, 1]}).choices == (True, 1)


def test_choices_take_no_key_of_a_range() -> None:
    found = problems_of({"choices": [1, 2], "low": 0, "choises": 3})
    assert found == [
        ("here.low", "unknown key"),
        ("here.choises", "unknown key, did you mean 'choices'?"),
    ]


def test_a_range_keeps_what_the_file_says() -> None:
    found = knob_of({"low": 1, "high": 100, "log": True, "per": "layer"})
    assert found == Knob(PLACE, low=1.0, high=100.0, log=True, per=1)


@pytest.mark.parametrize("data", [{"low": 0}, {"high": 1, "x": 2}, {"choices": 3}])
def test_low_high_or_choices_make_a_mapping_a_knob(data: dict[str, Any]) -> None:
    assert ranges.is_knob(data)


@pytest.mark.parametrize("data", [{"filter": "mlp", "value": 1}, {}, [{"low": 1}], "low", None, 0])
def test_other_data_is_no_knob(data: Any) -> None:
    assert not ranges.is_knob(data)


def test_units_and_shapes_spread_over_the_layers() -> None:
    assert not knob_of({"low": 0, "high": 1, "step": 0.1}).spread
    assert knob_of({"low": 0, "high": 1, "per": 3}).spread
    assert knob_of({"low": 0, "high": 1, "gradient": 3}).spread
    assert knob_of({"low": 0, "high": 1, "shape": "line"}).unit == "shape"
    assert knob_of({"low": 0, "high": 1, "per": [[0, 1], [2, 3]]}).per == ((0, 1), (2, 3))


@pytest.mark.parametrize(("value", "snapped"), [(-1, 0.1), (0.1, 0.1), (0.37, 0.37), (7, 0.9)])
def test_without_a_step_a_value_is_only_moved_into_the_range(value: float, snapped: float) -> None:
    assert knob_of({"low": 0.1, "high": 0.9}).snapped(value) == snapped


def test_grid_values_are_free_of_float_noise() -> None:
    knob = knob_of({"low": 0.1, "high": 1.0, "step": 0.05})
    values = [knob.snapped(0.1 + i * 0.05) for i in range(19)]
    assert values == [round(0.1 + i / 20, 2) for i in range(19)]


def test_the_nearest_grid_value_is_taken() -> None:
    knob = knob_of({"low": 0.1, "high": 1.0, "step": 0.05})
    assert (knob.snapped(0.5249), knob.snapped(0.5251)) == (0.5, 0.55)


@pytest.mark.parametrize("high", [0.7, 1.0, 1.3])
def test_the_high_end_is_on_the_grid_whatever_floats_make_of_the_quotient(high: float) -> None:
    knob = knob_of({"low": 0.1, "high": high, "step": 0.1})
    assert [knob.snapped(x) for x in (high - 0.04, high, 5)] == [high] * 3

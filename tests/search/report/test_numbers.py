"""Numbers of the report are short, and never say more or less than they are."""

from __future__ import annotations

import math

import pytest

from search.report.page.axis import Axis, nice
from search.report.page.numbers import counted, interval, number, seconds, signed

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.8014, "0.801"),
        (-0.25, f"{MINUS}0.250"),
        (12.3456, "12.35"),
        (1234.56, "1235"),
        (0.00012, "0.00012"),
        (0.0, "0.000"),
        (-0.0, "0.000"),
        (1731584.0, "1.732M"),
        (-878591.4, f"{MINUS}878.6k"),
        (math.inf, "\N{INFINITY}"),
        (-math.inf, f"{MINUS}\N{INFINITY}"),
        (math.nan, "\N{EN DASH}"),
        (None, "\N{EN DASH}"),
    ],
)
def test_number_has_four_digits_at_most_and_a_true_minus(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_difference_has_its_sign_and_an_interval_without_width_is_exact() -> None:
    assert (signed(0.1), signed(-0.1), signed(-0.0)) == ("+0.100", f"{MINUS}0.100", "+0.000")
    assert interval(0.25, 0.5) == "0.250 to 0.500"
    assert interval(3.0, 3.0) == "exact"


def test_times_and_counts_are_said_as_people_do() -> None:
    assert (seconds(3.14159), seconds(125), seconds(7322)) == ("3.14 s", "2 min 05 s", "2 h 02 min")
    assert (counted(1, "trial"), counted(1200, "trial")) == ("1 trial", "1,200 trials")


@pytest.mark.parametrize(
    ("step", "rounded"), [(0.013, 0.02), (0.02, 0.02), (3.0, 5.0), (51.0, 100.0), (0.0, 1.0)]
)
def test_step_is_one_two_or_five_times_a_power_of_ten(step: float, rounded: float) -> None:
    assert nice(step) == pytest.approx(rounded)


@pytest.mark.parametrize(
    "values",
    [
        [0.1, 0.9],
        [-3e6, 2e6],
        [5.0],
        [0.0, 0.0],
        [],
        [1e-9, 2e-9],
        [0.5, math.inf],
        [99_999.0, 100_001.0],
    ],
)
def test_axis_has_all_finite_values_inside_and_ticks_that_differ(values: list[float]) -> None:
    axis = Axis.of(values)
    for value in filter(math.isfinite, values):
        assert axis.low <= value <= axis.high
        assert 0 <= axis.at(value) <= 100
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 8
    assert len({words for _, words in ticks}) == len(ticks)
    assert [place for place, _ in ticks] == sorted(place for place, _ in ticks)
    assert axis.at(math.inf) == 100


def test_ticks_of_large_numbers_have_one_letter() -> None:
    ticks = [words for _, words in Axis.of([0.0, 450_000.0], room=0).ticks()]
    assert ticks == ["0", "100k", "200k", "300k", "400k"]

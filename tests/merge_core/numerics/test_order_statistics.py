"""Cuts against a plain sort: which entries are on either side, also where many are equal."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_core.numerics import order_statistics
from merge_core.numerics.order_statistics import ranked

SPECIAL = [0.0, 1.4e-45, 1.2e-38, 1.0, 1.0000001, 2.0, 3e38, float("inf")]
SIZES = st.lists(
    st.sampled_from(SPECIAL) | st.floats(0, width=32, allow_nan=False), min_size=1, max_size=40
)


def large_side(parts, cut, *, equals_ahead):
    """Flat places of the entries that are not before the cut."""
    flat = torch.cat(parts)
    ahead = torch.arange(len(flat)) < cut.place
    equal = (flat == cut.threshold) & (ahead if equals_ahead else ~ahead)
    return set(((flat > cut.threshold) | equal).nonzero().reshape(-1).tolist())


def by_sort(parts, place, *, equals_ahead):
    flat = torch.cat(parts).tolist()
    order = sorted(range(len(flat)), key=lambda i: (flat[i], -i if equals_ahead else i))
    return set(order[place:])


@pytest.mark.parametrize("equals_ahead", [True, False])
@given(values=SIZES, pieces=st.integers(1, 5), data=st.data())
@settings(max_examples=150)
def test_entries_on_the_large_side_are_those_of_a_sort(equals_ahead, values, pieces, data):
    parts = torch.tensor(values, dtype=torch.float32).tensor_split(pieces)
    places = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=12))
    found = ranked(lambda: parts, places, first_equal_last=equals_ahead)
    for place, cut in zip(places, found, strict=True):
        expected = by_sort(parts, place, equals_ahead=equals_ahead)
        assert large_side(parts, cut, equals_ahead=equals_ahead) == expected


@pytest.mark.parametrize("equals_ahead", [True, False])
@pytest.mark.parametrize("levels", [2, 7, 1000])
def test_a_hundred_cuts_at_once_are_those_one_by_one(monkeypatch, equals_ahead, levels):
    stream = torch.Generator().manual_seed(levels)
    parts = (torch.randint(0, levels, (5000,), generator=stream).float() / 3).split(700)
    places = list(range(0, 5000, 50))
    together = ranked(lambda: parts, places, first_equal_last=equals_ahead)
    alone = [ranked(lambda: parts, [p], first_equal_last=equals_ahead)[0] for p in places]
    assert together == alone
    for place, cut in zip(places, together, strict=True):
        expected = by_sort(parts, place, equals_ahead=equals_ahead)
        assert large_side(parts, cut, equals_ahead=equals_ahead) == expected
    monkeypatch.setattr(order_statistics, "FEW", 1)
    assert ranked(lambda: parts, places[:3], first_equal_last=equals_ahead) == alone[:3]


def test_cut_behind_all_entries_is_at_infinity():
    (cut,) = ranked(lambda: [torch.ones(3)], [3], first_equal_last=True)
    assert (cut.threshold, cut.place) == (float("inf"), 0)

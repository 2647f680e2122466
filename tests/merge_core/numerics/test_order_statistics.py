"""Cuts against a plain sort: which entries are on either side, also where many are equal."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_core.contract import Cut
from merge_core.errors import ParameterError
from merge_core.numerics import order_statistics
from merge_core.numerics.order_statistics import (
    first_kept,
    grid,
    looked_up,
    packed,
    ranked,
)
from tests.merge_core.methods.merging import largest
from tests.merge_core.whole_cuts import cuts

SPECIAL = [0.0, 1.4e-45, 1.2e-38, 1.0, 1.0000001, 2.0, 3e38, float("inf")]
SIZES = st.lists(
    st.sampled_from(SPECIAL) | st.floats(0, width=32, allow_nan=False), min_size=1, max_size=40
)


@pytest.fixture(scope="module", params=[0, order_statistics.SORTED], ids=["counted", "sorted"])
def up_to(request):
    """How many entries are sorted: no test has as many as that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_statistics, "SORTED", request.param)
        yield


pytestmark = pytest.mark.usefixtures("up_to")


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


SIGNED = [0.0, -0.0, 1.4e-45, -1.4e-45, 1.2e-38, 1.0, -1.0, 1.0000001, 2.0, 3e38, math.inf]
ENTRIES = st.one_of(st.sampled_from(SIGNED), st.floats(width=32, allow_nan=False))
TENSORS = st.lists(st.lists(ENTRIES, max_size=12), max_size=6)


def tensors(*parts):
    return [torch.tensor(part, dtype=torch.float32) for part in parts]


def beyond(delta, cut):
    """The entries on the large side of a cut."""
    size = delta.abs()
    ahead = torch.arange(delta.numel()).reshape(delta.shape) < cut.place
    return (size > cut.threshold) | ((size == cut.threshold) & ahead)


def chosen(parts, density):
    """Places in the concatenated vector of the entries that the cuts keep."""
    made = cuts(lambda: iter(parts), density)
    masks = [beyond(part, cut).reshape(-1) for part, cut in zip(parts, made, strict=True)]
    return torch.cat(masks).nonzero().reshape(-1).tolist()


def largest_by_sort(parts, density):
    """The largest of the concatenated vector, the first among equals: a plain sort."""
    flat = torch.cat([part.reshape(-1) for part in parts]).tolist()
    count = max(1, math.floor(density * len(flat)))
    return sorted(sorted(range(len(flat)), key=lambda i: (-abs(flat[i]), i))[:count])


@given(TENSORS, st.floats(min_value=0.001, max_value=1))
@settings(max_examples=300)
def test_entries_kept_are_those_of_a_sort_of_the_whole_vector(values, density):
    parts = [torch.tensor(part, dtype=torch.float32) for part in [*values, [1.0]]]
    assert chosen(parts, density) == largest_by_sort(parts, density)


@pytest.mark.parametrize("levels", [1, 3, 1_000_000])
@pytest.mark.parametrize("density", [0.001, 0.29, 0.5, 0.999, 1.0])
def test_entries_kept_are_those_of_a_sort_also_where_many_are_equal(levels, density):
    stream = torch.Generator().manual_seed(levels)
    shapes = [(16, 33), (7,), (0, 4), (), (99,), (1, 1)]
    parts = [torch.randint(-levels, levels + 1, s, generator=stream).float() / 7 for s in shapes]
    assert chosen(parts, density) == largest_by_sort(parts, density)


@pytest.mark.parametrize("density", [0.001, 0.3, 1.0])
def test_entries_of_one_high_half_differ_by_their_low_halves(density):
    # float32 from 1 to 1 + 2**-7 share the high 16 bits of their patterns
    parts = [1 + torch.randperm(500).float() * 2**-23, 1 + torch.randperm(300).float() * 2**-22]
    assert chosen(parts, density) == largest_by_sort(parts, density)


def test_golden_cuts():
    # By hand: of 3, 2, 2, 2, 2, 1 three stay: 3, and of the twos the first two by tensor and place.
    parts = tensors([1, -2], [2, -3, 2], [2])
    assert cuts(lambda: parts, 0.5) == [Cut(2.0, 2), Cut(2.0, 1), Cut(2.0, 0)]


def test_vector_of_zeros_keeps_its_first_entries():
    parts = tensors([0, -0.0], [0, 0])
    assert cuts(lambda: parts, 0.75) == [Cut(0.0, 2), Cut(0.0, 1)]


def test_one_tensor_is_cut_as_by_itself():
    delta = torch.randn(16, 33, generator=torch.Generator().manual_seed(3))
    (cut,) = cuts(lambda: [delta], 0.3)
    assert beyond(delta, cut).equal(largest(delta, 0.3))


def test_entries_that_are_not_finite_rank_highest_and_do_not_stop_the_cut():
    broken = tensors([1, -math.nan, 2], [math.nan, -math.inf])
    assert cuts(lambda: broken, 0.6) == [Cut(math.inf, 3), Cut(math.inf, 2)]
    assert cuts(lambda: broken, 0.8) == [Cut(2.0, 3), Cut(2.0, 0)]


def test_one_entry_stays_at_least():
    assert chosen(tensors([1, 2], [3]), 1e-9) == [2]


@pytest.mark.parametrize("parts", [[], [torch.zeros(0)], [torch.zeros(0, 4), torch.zeros(2, 0)]])
def test_vector_without_entries_has_cuts_that_keep_nothing(parts):
    assert cuts(lambda: parts, 0.5) == [Cut(math.inf, 0)] * len(parts)


def test_tensors_that_are_not_contiguous_are_cut_in_the_order_of_their_entries():
    delta = torch.tensor([[1.0, 1.0], [2.0, 1.0], [1.0, 3.0]]).T
    assert chosen([delta], 0.5) == largest_by_sort([delta], 0.5)


def test_tensors_are_asked_for_again_and_left_as_they_were():
    parts = tensors([1, -2], [2, -3, 2])
    before = [part.clone() for part in parts]
    calls = []

    def again():
        calls.append(len(calls))
        return iter(parts)

    cuts(again, 0.5)
    assert 2 <= len(calls) <= 5
    assert all(part.equal(was) for part, was in zip(parts, before, strict=True))


@pytest.mark.parametrize("density", [0, -0.1, 1.01, math.nan])
def test_density_that_is_no_share_is_refused(density):
    with pytest.raises(ParameterError, match=r"density must be in \(0, 1\], got"):
        first_kept(10, density)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100, 12_345])
def test_packed_cuts_are_looked_up_as_they_were(count):
    places = grid(count)
    made = [Cut(math.inf if i % 3 else i / 7, 2**40 + i) for i in range(len(places))]
    table = packed(places, made)
    assert [looked_up(table, place) for place in places] == made
    others = [place for place in {-1, 0, 1, count // 2 + 1, count} if place not in places]
    assert [looked_up(table, place) for place in others] == [None] * len(others)
    assert table.numel() * table.element_size() <= 99 * 24

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_core.contract import Cut
from merge_core.errors import ParameterError
from merge_core.numerics.whole_vector import cuts
from tests.merge_core.methods.merging import largest

SPECIAL = [0.0, -0.0, 1.4e-45, -1.4e-45, 1.2e-38, 1.0, -1.0, 1.0000001, 2.0, 3e38, math.inf]
SIZES = st.one_of(st.sampled_from(SPECIAL), st.floats(width=32, allow_nan=False))
TENSORS = st.lists(st.lists(SIZES, max_size=12), max_size=6)


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


def by_sort(parts, density):
    """The largest of the concatenated vector, the first among equals: a plain sort."""
    flat = torch.cat([part.reshape(-1) for part in parts]).tolist()
    count = max(1, math.floor(density * len(flat)))
    return sorted(sorted(range(len(flat)), key=lambda i: (-abs(flat[i]), i))[:count])


@given(TENSORS, st.floats(min_value=0.001, max_value=1))
@settings(max_examples=300)
def test_entries_kept_are_those_of_a_sort_of_the_whole_vector(values, density):
    parts = [torch.tensor(part, dtype=torch.float32) for part in [*values, [1.0]]]
    assert chosen(parts, density) == by_sort(parts, density)


@pytest.mark.parametrize("levels", [1, 3, 1_000_000])
@pytest.mark.parametrize("density", [0.001, 0.29, 0.5, 0.999, 1.0])
def test_entries_kept_are_those_of_a_sort_also_where_many_are_equal(levels, density):
    stream = torch.Generator().manual_seed(levels)
    shapes = [(16, 33), (7,), (0, 4), (), (99,), (1, 1)]
    parts = [torch.randint(-levels, levels + 1, s, generator=stream).float() / 7 for s in shapes]
    assert chosen(parts, density) == by_sort(parts, density)


@pytest.mark.parametrize("density", [0.001, 0.3, 1.0])
def test_entries_of_one_high_half_differ_by_their_low_halves(density):
    # float32 from 1 to 1 + 2**-7 share the high 16 bits of their patterns
    parts = [1 + torch.randperm(500).float() * 2**-23, 1 + torch.randperm(300).float() * 2**-22]
    assert chosen(parts, density) == by_sort(parts, density)


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
    assert chosen([delta], 0.5) == by_sort([delta], 0.5)


def test_tensors_are_asked_for_again_and_left_as_they_were():
    parts = tensors([1, -2], [2, -3, 2])
    before = [part.clone() for part in parts]
    calls = []

    def again():
        calls.append(len(calls))
        return iter(parts)

    cuts(again, 0.5)
    assert 3 <= len(calls) <= 4
    assert all(part.equal(was) for part, was in zip(parts, before, strict=True))


@pytest.mark.parametrize("density", [0, -0.1, 1.01, math.nan])
def test_density_that_is_no_share_is_refused(density):
    with pytest.raises(ParameterError, match=r"density must be in \(0, 1\], got"):
        cuts(list, density)

import math

import pytest
import torch

from merge_core.methods.shared.sparsify.largest import trim_largest
from merge_core.testing import SHAPES
from tests.merge_core.methods.merging import largest, tensor


def by_hand(delta, density):
    """The entries of largest magnitude, the lowest index first among equals: a plain sort."""
    flat = delta.reshape(-1).tolist()
    count = max(1, math.floor(density * len(flat)))
    order = sorted(range(len(flat)), key=lambda i: (-abs(flat[i]), i))
    return set(order[:count])


def entries(mask):
    return set(mask.reshape(-1).nonzero().reshape(-1).tolist())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.001, 0.29, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("levels", [2, 5, 1_000_000])
def test_largest_are_those_of_a_plain_sort_also_where_many_are_equal(shape, density, levels):
    stream = torch.Generator().manual_seed(math.prod(shape))
    delta = torch.randint(-levels, levels + 1, shape, generator=stream).float()
    keep = largest(delta, density)
    assert keep.shape == shape
    assert trim_largest(delta, density).equal(delta * keep)
    assert entries(keep) == by_hand(delta, density)


def test_lowest_index_goes_first_among_equals():
    assert largest(tensor(2, -1, 1, 1, -2), 0.6).tolist() == [True, True, False, False, True]
    assert largest(torch.zeros(4), 0.5).tolist() == [True, True, False, False]


def test_share_is_that_of_float_arithmetic_as_in_mergekit():
    # 0.29 * 100 is 28.999999999999996
    assert int(largest(torch.arange(100.0), 0.29).sum()) == 28

import math

import pytest
import torch

from merge_core.numerics import l1_norms
from merge_core.testing import threads

STREAM = torch.Generator().manual_seed(3)
SIZES = (torch.randn(100_000, generator=STREAM) * 10.0 ** torch.randint(-6, 3, (100_000,))).abs()


def total(x, pieces=1):
    parts = x.tensor_split(pieces)
    return l1_norms.total(lambda: parts, l1_norms.unit(l1_norms.largest(lambda: parts)))


def test_total_is_the_sum_in_float64():
    assert total(SIZES) == pytest.approx(float(SIZES.double().sum()), rel=1e-9)


def test_total_is_the_same_to_the_bit_in_any_pieces_order_and_threads():
    one = total(SIZES)
    assert total(SIZES, 17) == one
    assert total(SIZES[torch.randperm(len(SIZES), generator=STREAM)]) == one
    with threads(2):
        assert total(SIZES, 3) == one


def test_parts_of_a_total_add_up_to_it():
    # so that a table of partial sums and a sum from scratch are the same number
    unit = l1_norms.unit(float(SIZES.max()))
    parts = [l1_norms.total(lambda part=part: [part], unit) for part in SIZES.split(30_000)]
    assert sum(parts) == l1_norms.total(lambda: [SIZES], unit)


@pytest.mark.parametrize("largest", [1.0, 0.75, 1e30, 3e38, 1e-30, 1.4e-45])
def test_largest_size_is_about_two_to_the_31_units(largest):
    unit = l1_norms.unit(largest)
    assert math.frexp(unit)[0] == 0.5  # a power of two
    assert 2**30 <= largest / unit <= 2**31


@pytest.mark.parametrize("largest", [0.0, math.inf, math.nan])
def test_unit_without_a_finite_largest_is_one(largest):
    assert l1_norms.unit(largest) == 1.0


def test_nothing_weighs_nothing():
    assert l1_norms.largest(list) == 0
    assert l1_norms.total(list, 1.0) == 0
    assert total(torch.zeros(5)) == 0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_total_of_what_is_not_finite_is_nan(broken):
    assert math.isnan(total(torch.tensor([1.0, broken])))

import math

import numpy as np
import pytest
import torch

from merge_core.kernels.threads import one_thread
from merge_core.numerics import exact_sums
from merge_core.numerics.exact_sums import dot, l1, row_dots
from merge_core.testing import assert_same_bits, threads

STREAM = torch.Generator().manual_seed(5)
A, B = (torch.randn(300, 1001, generator=STREAM) for _ in range(2))


def exact(terms):
    return math.fsum(terms.reshape(-1).tolist())


@pytest.mark.parametrize("count", [0, 1, 7, 2**14 - 1, 2**14, 2**14 + 1, 300_300])
def test_sums_are_those_of_exact_arithmetic(count):
    a, b = A.reshape(-1)[:count], B.reshape(-1)[:count]
    terms = a.double() * b.double()
    # a float64 sum of n terms errs by at most n * 2**-53 times the sum of their sizes
    error = count * 2**-53
    assert l1(a) == pytest.approx(exact(a.double().abs()), rel=error)
    assert dot(a, b) == pytest.approx(exact(terms), abs=error * exact(terms.abs()))


def test_sums_of_many_runs_are_summed_in_runs_again(monkeypatch):
    monkeypatch.setattr(exact_sums, "RUN", 3)
    a = A.reshape(-1)[:100]
    assert l1(a) == pytest.approx(exact(a.double().abs()), rel=1e-14)


def test_values_that_float32_cannot_add_are_added():
    x = torch.tensor([2.0**24, 1.0, 1.0, -(2.0**24)])
    assert dot(x, torch.ones(4)) == 2.0
    large = torch.tensor([1e30, 1e30])
    assert dot(large, large) == pytest.approx(2e60)


@pytest.mark.parametrize("reduce", [l1, lambda x: dot(x, B)])
def test_thread_count_does_not_change_a_bit(reduce):
    with threads(1):
        one = reduce(A)
    with threads(2):
        assert reduce(A) == one


def test_order_of_memory_does_not_matter_but_that_of_entries_is_kept():
    assert dot(A.T, B.T) == pytest.approx(dot(A, B), rel=1e-9)
    assert dot(A.T.contiguous(), B.T) == dot(A.T, B.T)


SHAPES = [(300, 1001), (1, 1001), (300, 1), (1, 1), (7, 40_000), (1, 300_300)]


@pytest.mark.parametrize("shape", SHAPES)
def test_dots_are_those_of_numpy_in_float64(shape):
    rows, n = shape
    a, b = (x.reshape(-1)[: rows * n].reshape(shape) for x in (A, B))
    terms = a.numpy().astype(np.float64) * b.numpy().astype(np.float64)
    # two float64 sums of n terms, each off by at most n * 2**-53 times the sum of their sizes
    error = 2 * n * 2**-53 * np.abs(terms).sum(1)
    dots = row_dots(a, b)
    assert dots.dtype == torch.float64
    assert dots.shape == (rows,)
    assert (np.abs(dots.numpy() - terms.sum(1)) <= error).all()


@pytest.mark.parametrize("shape", [(300, 1001), (7, 40_000), (2, 150_000), (1, 300_300)])
def test_thread_count_does_not_change_the_bits_of_rows(shape):
    a, b = (x.reshape(-1)[: shape[0] * shape[1]].reshape(shape) for x in (A, B))
    with threads(1):
        one = row_dots(a, b)
    with threads(2):
        assert_same_bits(row_dots(a, b), one, "two threads give other bits than one")


def test_dots_of_empty_rows_are_0():
    assert row_dots(torch.zeros(1, 0), torch.zeros(1, 0)).tolist() == [0.0]
    assert row_dots(torch.zeros(3, 0), torch.zeros(3, 0)).tolist() == [0.0] * 3


SIZE_STREAM = torch.Generator().manual_seed(3)
SIZES = (
    torch.randn(100_000, generator=SIZE_STREAM) * 10.0 ** torch.randint(-6, 3, (100_000,))
).abs()


def counted(x, pieces=1):
    parts = x.tensor_split(pieces)
    return exact_sums.counted(lambda: parts, exact_sums.unit(exact_sums.largest(lambda: parts)))


def test_total_is_the_sum_in_float64():
    assert counted(SIZES) == pytest.approx(float(SIZES.double().sum()), rel=1e-9)


def test_total_is_the_same_to_the_bit_in_any_pieces_order_and_threads():
    one = counted(SIZES)
    assert counted(SIZES, 17) == one
    assert counted(SIZES[torch.randperm(len(SIZES), generator=SIZE_STREAM)]) == one
    with threads(2):
        assert counted(SIZES, 3) == one


def test_parts_of_a_total_add_up_to_it():
    # so that a table of partial sums and a sum from scratch are the same number
    unit = exact_sums.unit(float(SIZES.max()))
    parts = [exact_sums.counted(lambda part=part: [part], unit) for part in SIZES.split(30_000)]
    assert sum(parts) == exact_sums.counted(lambda: [SIZES], unit)


@pytest.mark.parametrize("largest", [1.0, 0.75, 1e30, 3e38, 1e-30, 1.4e-45])
def test_largest_size_is_about_two_to_the_31_units(largest):
    unit = exact_sums.unit(largest)
    assert math.frexp(unit)[0] == 0.5  # a power of two
    assert 2**30 <= largest / unit <= 2**31


@pytest.mark.parametrize("largest", [0.0, math.inf, math.nan])
def test_unit_without_a_finite_largest_is_one(largest):
    assert exact_sums.unit(largest) == 1.0


def test_nothing_weighs_nothing():
    assert exact_sums.largest(list) == 0
    assert exact_sums.counted(list, 1.0) == 0
    assert counted(torch.zeros(5)) == 0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_total_of_what_is_not_finite_is_nan(broken):
    assert math.isnan(counted(torch.tensor([1.0, broken])))


def test_number_of_threads_is_put_back_also_after_an_error():
    with threads(2):
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(RuntimeError, match="stop"), one_thread():
            raise RuntimeError("stop")
        assert torch.get_num_threads() == 2

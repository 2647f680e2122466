import numpy as np
import pytest
import torch

from merge_core.numerics.rows import row_dots
from merge_core.testing import assert_same_bits, threads

STREAM = torch.Generator().manual_seed(9)
A, B = (torch.randn(300, 1001, generator=STREAM) for _ in range(2))
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
def test_thread_count_does_not_change_the_bits(shape):
    a, b = (x.reshape(-1)[: shape[0] * shape[1]].reshape(shape) for x in (A, B))
    with threads(1):
        one = row_dots(a, b)
    with threads(2):
        assert_same_bits(row_dots(a, b), one, "two threads give other bits than one")


def test_dots_of_empty_rows_are_0():
    assert row_dots(torch.zeros(1, 0), torch.zeros(1, 0)).tolist() == [0.0]
    assert row_dots(torch.zeros(3, 0), torch.zeros(3, 0)).tolist() == [0.0] * 3

import math

import pytest
import torch

from merge_core.numerics import exact_sums
from merge_core.numerics.exact_sums import dot, l1
from merge_core.testing import threads

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

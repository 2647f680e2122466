import math

import pytest
import torch

from merge_core.errors import NonFiniteError
from merge_core.numerics import low_rank
from merge_core.numerics.low_rank import distance, nearest, norm


def matrix(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (40, 40), (1, 9), (9, 1)])
@pytest.mark.parametrize("rank", [1, 7])
@pytest.mark.parametrize("block", [low_rank.BLOCK, 64])
def test_factors_are_as_near_as_the_singular_values_allow(shape, rank, block, monkeypatch):
    monkeypatch.setattr(low_rank, "BLOCK", block)
    d = matrix(*shape)
    found, s = nearest(d, rank), torch.linalg.svdvals(d.double())
    assert (found.b.shape, found.a.shape) == ((shape[0], found.rank), (found.rank, shape[1]))
    assert found.rank == min(rank, *shape)
    assert found.error == pytest.approx(float(s[rank:].norm()), rel=1e-6, abs=1e-6)
    assert found.norm == pytest.approx(float(s.norm()), rel=1e-12)
    rest = (d.double() - found.b.double() @ found.a.double()).abs()
    assert found.largest == pytest.approx(float(rest.max()))


def test_both_factors_have_half_of_each_singular_value():
    found, s = nearest(matrix(20, 30), 5), torch.linalg.svdvals(matrix(20, 30).double())
    for part in (found.a.T, found.b):
        torch.testing.assert_close(part.double().norm(dim=0) ** 2, s[:5], rtol=1e-6, atol=0)


def test_no_more_columns_than_the_rank_of_the_matrix():
    whole = (matrix(30, 3) * 8).round() @ (matrix(3, 40) * 8).round()  # exact in float32
    found = nearest(whole, 16)
    assert found.rank == 3
    assert found.error <= 1e-6 * found.norm
    assert (nearest(torch.zeros(4, 5), 2).rank, nearest(torch.zeros(4, 5), 2).error) == (0, 0.0)


def test_singular_values_far_below_the_largest_are_found():
    u, v = (torch.linalg.qr(matrix(30, 30, seed=i).double())[0] for i in (1, 2))
    s = torch.logspace(0, -4, 30, dtype=torch.float64)
    d = (u * s @ v).float()
    assert nearest(d, 20).error == pytest.approx(float(s[20:].norm()), rel=1e-3)


def test_rounding_of_the_factors_is_in_the_error():
    d = matrix(12, 12)
    exact, rounded = nearest(d, 12), nearest(d, 12, "bfloat16")
    assert rounded.a.dtype == rounded.b.dtype == torch.bfloat16
    assert exact.error < 1e-5 < 1e-3 < rounded.error
    assert (rounded.error, rounded.largest) == distance(d, rounded.a, rounded.b)


def test_what_is_not_finite_has_no_factors():
    with pytest.raises(NonFiniteError, match="not all finite"):
        nearest(torch.tensor([[1.0, math.nan]]), 1)


def test_norm_is_that_of_all_entries_whatever_the_blocks(monkeypatch):
    x = matrix(7, 11, 13)
    wanted = float(x.double().norm())
    for block in (5, 2**22):
        monkeypatch.setattr(low_rank, "BLOCK", block)
        assert norm(x) == pytest.approx(wanted, rel=1e-12)

import threading

import pytest
import torch

from merge_core.errors import NonFiniteError
from merge_core.numerics import svd
from merge_core.numerics.svd import decomposed, isometry, of_each, product
from merge_core.testing import threads

STREAM = torch.Generator().manual_seed(7)
SHAPES = [(1, 1), (8, 1), (1, 8), (16, 33), (33, 16)]


def randn(*shape):
    return torch.randn(shape, generator=STREAM, dtype=torch.float64)


def of_rank(m, n, r):
    """Whole numbers, so that the rank is exact."""
    a, b = (torch.randint(-3, 4, s, generator=STREAM).double() for s in [(m, r), (r, n)])
    return a @ b


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_give_the_matrix_back_and_are_orthonormal(shape):
    x = randn(*shape).float()
    u, s, vt = decomposed(x)
    eye = torch.eye(min(shape), dtype=torch.float64)
    # float64 factors err by a few times 2**-53 times the largest singular value, below 20
    torch.testing.assert_close(u * s @ vt, x.double(), rtol=0, atol=1e-13)
    torch.testing.assert_close(u.T @ u, eye, rtol=0, atol=1e-13)
    torch.testing.assert_close(vt @ vt.T, eye, rtol=0, atol=1e-13)
    assert s.tolist() == sorted(s.tolist(), reverse=True)


@pytest.mark.parametrize(("m", "n", "r"), [(7, 5, 0), (7, 5, 1), (5, 7, 3), (40, 30, 12)])
def test_directions_of_singular_value_zero_are_left_out(m, n, r):
    u, s, vt = decomposed(of_rank(m, n, r))
    assert (u.shape, s.shape, vt.shape) == ((m, r), (r,), (r, n))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (3, 2)])
def test_empty_and_zero_matrices_have_no_directions(shape):
    u, s, vt = decomposed(torch.zeros(shape))
    assert (u.shape, s.shape, vt.shape) == ((shape[0], 0), (0,), (0, shape[1]))
    assert product(u * s, vt).equal(torch.zeros(shape, dtype=torch.float64))
    assert isometry(torch.zeros(shape).double()).equal(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_matrix_that_is_not_finite_is_refused(broken):
    x = torch.ones(2, 3)
    x[1, 2] = broken
    with pytest.raises(NonFiniteError, match=r"a task vector of shape \(2, 3\) has NaN or inf"):
        decomposed(x)


def test_isometry_is_the_nearest_of_many_orthonormal_matrices():
    x = randn(9, 4)
    best = isometry(x)
    torch.testing.assert_close(best.T @ best, torch.eye(4).double(), rtol=0, atol=1e-13)
    others = [torch.linalg.qr(best + 0.1 * randn(9, 4)).Q for _ in range(20)]
    assert all((best - x).norm() < (other - x).norm() for other in others)


def test_isometry_of_orthonormal_columns_is_itself():
    q = torch.linalg.qr(randn(9, 4)).Q
    torch.testing.assert_close(isometry(q), q, rtol=0, atol=1e-13)


def test_isometry_of_a_column_listed_twice_adds_no_direction_of_its_own():
    # By hand: (1, 0), (1, 0) is sqrt(2) (1, 0) (1, 1) / sqrt(2).
    out = isometry(torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64))
    expected = torch.tensor([[0.5**0.5] * 2, [0.0] * 2], dtype=torch.float64)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-15)


def test_thread_count_does_not_change_a_bit():
    x, y = randn(401, 331), randn(331, 401)
    results = []
    for n in (1, 2):
        with threads(n):
            results.append([*decomposed(x), isometry(x), product(x, y)])
    assert all(one.equal(two) for one, two in zip(*results, strict=True))


def test_matrices_are_decomposed_at_once_with_the_bits_of_one_by_one():
    matrices = [randn(401, 331).float(), randn(90, 401).float(), randn(331, 401).float()]
    alone = [decomposed(x) for x in matrices]
    for count in (1, 3):
        with threads(count):
            for one, other in zip(alone, of_each(decomposed, matrices), strict=True):
                assert all(a.equal(b) for a, b in zip(one, other, strict=True))


def test_large_matrices_are_taken_one_after_the_other(monkeypatch):
    here = threading.get_ident()
    small, large = torch.zeros(3, 3), torch.zeros(5, 5)
    monkeypatch.setattr(svd, "LARGE", 24)
    with threads(2):
        assert here not in of_each(lambda _: threading.get_ident(), [small, small])
        assert of_each(lambda _: threading.get_ident(), [small, large]) == [here, here]

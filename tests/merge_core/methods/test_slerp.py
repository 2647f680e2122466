import math

import pytest
import torch

from merge_core.methods.slerp import METHOD, NEARLY_PARALLEL
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, tensor

STREAM = torch.Generator().manual_seed(3)
A, B = (torch.randn(40, 25, generator=STREAM) for _ in range(2))
T = (0.1, 0.25, 0.5, 0.8)


class TestSlerp(MethodContract):
    method = METHOD


def slerp(a, b, t):
    return merge(METHOD, a, [b], t=t)


def angle(a, b):
    """Between two vectors, in float64: Kahan's formula, which has no inverse cosine."""
    a, b = a.double().reshape(-1), b.double().reshape(-1)
    a, b = a / a.norm(), b / b.norm()
    return 2 * math.atan2(float((a - b).norm()), float((a + b).norm()))


def rotated(a, b, t):
    """Closed form for vectors of one norm: turn ``a`` by ``t`` times the angle towards ``b``."""
    a, b = a.double(), b.double()
    across = b - a * ((a * b).sum() / (a * a).sum())  # Gram-Schmidt
    across = across * (a.norm() / across.norm())
    theta = angle(a, b)
    return a * math.cos(t * theta) + across * math.sin(t * theta)


def pair_at(theta, n=1000):
    """Two vectors of norm 3 with this angle between them."""
    a = torch.zeros(n, dtype=torch.float64)
    b = torch.zeros(n, dtype=torch.float64)
    a[7], b[7], b[500] = 3, 3 * math.cos(theta), 3 * math.sin(theta)
    return a.float(), b.float()


def test_golden_quarter_turn():
    # By hand: halfway between two unit vectors at a right angle is (1, 1) / sqrt(2).
    out = slerp(tensor(1, 0), tensor(0, 1), 0.5)
    assert out.tolist() == pytest.approx([0.5**0.5, 0.5**0.5], rel=2**-23)


def test_t_0_is_the_base_and_t_1_the_other_model():
    assert slerp(A, B, 0).equal(A)
    assert slerp(A, B, 1).equal(B)


@pytest.mark.parametrize("t", [*T, -0.4, 1.7])
def test_vectors_of_one_norm_turn_as_the_closed_form_in_float64_says(t):
    b = B * (A.norm() / B.norm())
    expected = rotated(A, b, t)
    # two float32 products and a sum, and a norm that is equal to within float32: 4 * 2**-23 of 7
    torch.testing.assert_close(slerp(A, b, t).double(), expected, rtol=0, atol=7 * 4 * 2**-23)


@pytest.mark.parametrize("t", T)
def test_norm_is_preserved_between_vectors_of_one_norm(t):
    a, b = pair_at(1.1)
    assert float(slerp(a, b, t).double().norm()) == pytest.approx(3, rel=1e-6)


@pytest.mark.parametrize("theta", [0.05, 1.0, 2.0, 3.1])
@pytest.mark.parametrize("t", T)
def test_angle_from_the_base_is_t_times_the_whole(theta, t):
    a, b = pair_at(theta)
    # the sum of two vectors of norm 3 / sin(theta) and a rounding of 2**-24 for each
    error = 4 * 2**-24 / math.sin(theta)
    assert angle(a, slerp(a, b, t)) == pytest.approx(t * theta, abs=error)


@pytest.mark.parametrize("t", T)
def test_coefficients_are_for_the_vectors_as_they_are_not_for_their_directions(t):
    theta = angle(A, B)
    first, second = (math.sin(x * theta) / math.sin(theta) for x in (1 - t, t))
    expected = first * A.double() + second * 9.0 * B.double()
    torch.testing.assert_close(slerp(A, 9 * B, t).double(), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("t", T)
def test_the_way_back_is_the_same_way(t):
    torch.testing.assert_close(slerp(A, B, t), slerp(B, A, 1 - t), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cosine", [NEARLY_PARALLEL + 1e-5, -NEARLY_PARALLEL - 1e-5, 1.0, -1.0])
def test_nearly_parallel_and_nearly_opposite_vectors_are_interpolated_on_the_line(cosine):
    a, b = pair_at(math.acos(cosine))
    expected = 0.75 * a.double() + 0.25 * b.double()
    torch.testing.assert_close(slerp(a, b, 0.25).double(), expected, rtol=1e-6, atol=1e-6)


def test_just_inside_the_threshold_the_arc_is_taken():
    a, b = pair_at(math.acos(-NEARLY_PARALLEL + 1e-5))
    assert float(slerp(a, b, 0.5).double().norm()) == pytest.approx(3, rel=1e-4)


def test_zero_vector_counts_as_being_at_a_right_angle():
    # By hand: cos = 0 / (1 * norm) = 0, so sin(t pi/2) of the other one.
    out = slerp(torch.zeros(3), tensor(3, 0, 4), 1 / 3)
    assert out.tolist() == pytest.approx([1.5, 0, 2])

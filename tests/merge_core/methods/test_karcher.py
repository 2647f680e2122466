import itertools

import pytest
import torch

from merge_core.methods.karcher import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, tensor

STREAM = torch.Generator().manual_seed(4)
MODELS = [torch.randn(40, 25, generator=STREAM) for _ in range(3)]
EQUAL = [model * (3 / model.norm()) for model in MODELS]


class TestKarcher(MethodContract):
    method = METHOD


def unit(x):
    return x.double() / x.double().norm()


def test_golden_halfway_between_a_right_angle():
    # By hand: (1, 1) / sqrt(2), times the mean norm (2 + 4) / 2.
    out = merge(METHOD, None, [tensor(2, 0), tensor(0, 4)])
    assert out.tolist() == pytest.approx([3 * 0.5**0.5] * 2, rel=2**-22)


def test_two_models_meet_halfway_along_the_arc():
    a, b = MODELS[:2]
    # slerp at 0.5 in float64: both coefficients alike, so the direction of the sum of the units
    expected = unit(unit(a) + unit(b)) * (a.double().norm() + b.double().norm()) / 2
    # entries below 5, under 8 roundings of 2**-24
    torch.testing.assert_close(
        merge(METHOD, None, [a, b]).double(), expected, rtol=0, atol=5 * 8 * 2**-24
    )


def test_norm_of_models_of_one_norm_is_kept():
    assert float(merge(METHOD, None, EQUAL).double().norm()) == pytest.approx(3, rel=1e-6)


def test_tangents_towards_the_models_cancel_out_at_the_mean():
    mean = unit(merge(METHOD, None, MODELS, max_iter=50))
    total = torch.zeros_like(mean)
    for model in MODELS:
        cosine = (unit(model) * mean).sum()
        across = unit(model) - cosine * mean
        total += across * cosine.arccos() / across.norm()
    # the last step was shorter than tol = 1e-5 of the mean of three
    assert float(total.norm()) <= 3 * 1e-5


def test_order_of_models_does_not_matter():
    outs = [merge(METHOD, None, list(order)) for order in itertools.permutations(MODELS)]
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], rtol=0, atol=1e-5)


def test_one_model_is_returned_but_for_rounding():
    torch.testing.assert_close(merge(METHOD, None, MODELS[:1]), MODELS[0], rtol=1e-6, atol=0)


def test_model_of_zeros_has_no_direction_but_counts_in_the_mean_norm():
    out = merge(METHOD, None, [tensor(3, 4), tensor(0, 0)])
    assert out.tolist() == pytest.approx([1.5, 2.0], rel=1e-6)
    assert merge(METHOD, None, [torch.zeros(2)] * 2).tolist() == [0, 0]


def test_opposite_models_have_a_mean_of_the_same_norm():
    out = merge(METHOD, None, [MODELS[0], -MODELS[0]])
    assert float(out.norm()) == pytest.approx(float(MODELS[0].norm()), rel=1e-6)

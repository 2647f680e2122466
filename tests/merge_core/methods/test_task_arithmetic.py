import itertools

import pytest
import torch

from merge_core.errors import ParameterError
from merge_core.methods import linear
from merge_core.methods.task_arithmetic import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models, tensor


class TestTaskArithmetic(MethodContract):
    method = METHOD


def test_golden_sum_of_task_vectors():
    # By hand: [1,2] + 2 * (0.5*[2,0] + -1*[0,4]) = [1,2] + [2,-8].
    out = merge(METHOD, tensor(1, 2), [tensor(3, 2), tensor(1, 6)], weight=[0.5, -1], lambda_=2)
    assert out.tolist() == [3.0, -6.0]


def test_golden_normalized_sum():
    # By hand: [1,2] + (1*[2,0] + 3*[0,4]) / 4.
    models = [tensor(3, 2), tensor(1, 6)]
    out = merge(METHOD, tensor(1, 2), models, weight=[1, 3], normalize=True)
    assert out.tolist() == [1.5, 5.0]


def test_analogy_adds_what_b_has_over_a_to_c():
    # A is to B as C is to D (arXiv:2212.04089, section 5): D = base + C + (B - A).
    base, (a, b, c) = random_models()
    expected = base.double() + (c - base).double() + (b.double() - a.double())
    out = merge(METHOD, base, [a, b, c], weight=[-1, 1, 1])
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=6 * 5 * 2**-24)


def test_forgetting_is_the_mirror_image_of_learning():
    base, (model, *_) = random_models()
    learned, forgot = (merge(METHOD, base, [model], weight=[w]) for w in (1, -1))
    torch.testing.assert_close(learned + forgot, 2 * base, rtol=0, atol=5 * 2**-22)


def test_lambda_0_is_the_base_and_lambda_scales_the_way_from_it():
    base, models = random_models()
    assert merge(METHOD, base, models, lambda_=0.0).equal(base)
    once, twice = (merge(METHOD, base, models, lambda_=x).double() - base for x in (1.0, 2.0))
    torch.testing.assert_close(twice, 2 * once, rtol=0, atol=8 * 2**-23)


def test_linear_with_what_is_left_for_the_base_is_the_same():
    base, models = random_models()
    weights = [0.3, 0.25, 0.2]
    rest = 1 - sum(weights)
    soup = merge(linear.METHOD, None, [base, *models], weight=[rest, *weights])
    out = merge(METHOD, base, models, weight=weights)
    torch.testing.assert_close(out, soup, rtol=1e-6, atol=2e-6)


def test_order_of_models_does_not_matter_if_their_weights_move_with_them():
    base, models = random_models()
    outs = [
        merge(METHOD, base, [models[i] for i in order], weight=[[0.2, 0.5, 0.9][i] for i in order])
        for order in itertools.permutations(range(3))
    ]
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], rtol=1e-6, atol=1e-6)


def test_no_model_beside_the_base_gives_the_base():
    base, _ = random_models()
    assert merge(METHOD, base, []).equal(base)


def test_weights_that_sum_to_zero_are_refused_where_they_are_normalized():
    base, models = random_models(count=2)
    with pytest.raises(ParameterError, match=r"the weights sum to 0 .*; got \[0.5, -0.5\]"):
        merge(METHOD, base, models, weight=[0.5, -0.5], normalize=True)


def test_int8_mask_changes_nothing():
    base, models = random_models()
    on, off = (merge(METHOD, base, models, int8_mask=flag) for flag in (True, False))
    assert on.equal(off)

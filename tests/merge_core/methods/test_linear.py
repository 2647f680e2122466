import itertools

import pytest
import torch

from merge_core.errors import ParameterError
from merge_core.methods.linear import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models, tensor


class TestLinear(MethodContract):
    method = METHOD


def test_golden_weighted_mean():
    # By hand: (1*[1,2] + 3*[5,6]) / 4 = [4, 5].
    out = merge(METHOD, None, [tensor(1, 2), tensor(5, 6)], weight=[1, 3])
    assert out.tolist() == [4.0, 5.0]


def test_golden_weighted_sum():
    # By hand: 1*[1,2] + 3*[5,6] = [16, 20].
    out = merge(METHOD, None, [tensor(1, 2), tensor(5, 6)], weight=[1, 3], normalize=False)
    assert out.tolist() == [16.0, 20.0]


def test_weight_one_and_zeros_give_that_model():
    _, models = random_models()
    assert merge(METHOD, None, models, weight=[0, 1, 0]).equal(models[1])


def test_equal_weights_give_the_mean_in_float64():
    _, models = random_models(count=4)
    mean = torch.stack(models).double().mean(0)
    # four products, three sums, one quotient: at most 8 roundings of 2**-24, of values below 5
    out = merge(METHOD, None, models).double()
    torch.testing.assert_close(out, mean, rtol=0, atol=5 * 8 * 2**-24)


def test_scale_of_the_weights_does_not_matter_where_they_are_normalized():
    _, models = random_models()
    outs = [merge(METHOD, None, models, weight=[0.2 * s, 0.5 * s, 0.3 * s]) for s in (1, 8)]
    torch.testing.assert_close(*outs, rtol=1e-6, atol=1e-6)


def test_order_of_models_does_not_matter_if_their_weights_move_with_them():
    _, models = random_models()
    weights = [0.2, 0.5, 0.9]
    outs = [
        merge(METHOD, None, [models[i] for i in order], weight=[weights[i] for i in order])
        for order in itertools.permutations(range(3))
    ]
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], rtol=1e-6, atol=1e-6)


def test_weights_that_sum_to_zero_are_refused_only_where_they_are_normalized():
    models = [tensor(1, 2), tensor(5, 6)]
    with pytest.raises(ParameterError, match=r"sum to 0 and cannot be normalized; got \[1\.0,"):
        merge(METHOD, None, models, weight=[1, -1])
    out = merge(METHOD, None, models, weight=[1, -1], normalize=False)
    assert out.tolist() == [-4.0, -4.0]

import math

import numpy as np
import pytest
import torch

from merge_core.errors import NonFiniteError
from merge_core.kernels import run
from merge_core.methods import task_arithmetic
from merge_core.methods.iso_c import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import inputs_for, merge, random_models

SHAPES = [(8, 1), (1, 8), (16, 33), (33, 16)]
WEIGHTS = [0.4, 1.0, 1.3]


class TestIsoC(MethodContract):
    method = METHOD


def matrices(shape, count=3, spread=0.1):
    base, models = random_models(math.prod(shape), count, spread=spread)
    return base.reshape(shape), [model.reshape(shape) for model in models]


def singular_values(x):
    return torch.linalg.svdvals(x.double())


@pytest.mark.parametrize("shape", SHAPES)
def test_result_is_that_of_numpy(shape):
    base, models = matrices(shape)
    total = sum(
        w * (model.double() - base.double()) for w, model in zip(WEIGHTS, models, strict=True)
    )
    u, s, vt = np.linalg.svd(total.numpy(), full_matrices=False)
    expected = base.double() + 1.5 * torch.from_numpy(u @ vt) * s.mean()
    out = merge(METHOD, base, models, weight=WEIGHTS, lambda_=1.5)
    # entries below 8 with 3 roundings of 2**-24; the sum's own, against its smallest singular value
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_singular_values_of_the_merged_task_vector_are_the_mean_of_those_of_the_sum(shape):
    _, models = matrices(shape)
    zeros = torch.zeros(shape)
    mean = singular_values(sum(models)).mean()
    out = merge(METHOD, zeros, models, lambda_=0.5)
    expected = 0.5 * mean.expand(min(shape))
    torch.testing.assert_close(singular_values(out), expected, rtol=1e-6, atol=0)


def test_golden_diagonal():
    # By hand: singular values 3 and 1, mean 2; signs and places stay.
    models = [torch.tensor([[4.0, 0.0], [0.0, 0.0]]), torch.tensor([[-1.0, 0.0], [0.0, -1.0]])]
    out = merge(METHOD, torch.ones(2, 2), [1 + model for model in models])
    torch.testing.assert_close(out, 1 + torch.tensor([[2.0, 0.0], [0.0, -2.0]]))


def test_directions_that_the_sum_does_not_have_stay_at_the_base():
    # By hand: one singular value, 3 * 5 = 15, and nothing to even out.
    delta = torch.outer(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([3.0, 4.0]))
    out = merge(METHOD, torch.zeros(3, 2), [delta, torch.zeros(3, 2)])
    torch.testing.assert_close(out, delta, rtol=1e-6, atol=1e-6)


def test_orthogonal_sum_is_task_arithmetic():
    base, _ = matrices((16, 16))
    q = torch.linalg.qr(matrices((16, 16))[1][0]).Q
    models = [base + 0.7 * q, base + 0.2 * q]
    plain = merge(task_arithmetic.METHOD, base, models)
    torch.testing.assert_close(merge(METHOD, base, models), plain, rtol=1e-5, atol=1e-5)


def test_task_vectors_that_cancel_give_the_base():
    base = torch.ones(5, 3)
    delta = torch.arange(15.0).reshape(5, 3)
    assert merge(METHOD, base, [base + delta, base - delta]).equal(base)


@pytest.mark.parametrize("shape", [(), (6,), (2, 3, 4)])
def test_tensor_that_is_no_matrix_gets_the_mean(shape):
    base = torch.ones(shape)
    out = merge(METHOD, base, [base + 2, base + 4], weight=[1.0, 0.5], lambda_=0.5)
    assert out.equal(base + 1)


def test_transposed_inputs_give_the_transposed_result():
    base, models = matrices((16, 33))
    out = merge(METHOD, base, models)
    turned = merge(METHOD, base.T, [model.T for model in models])
    torch.testing.assert_close(turned.T, out, rtol=1e-5, atol=1e-5)


def test_matrices_of_large_entries_stay_finite():
    base, models = matrices((4, 5), spread=1e30)
    assert bool(merge(METHOD, base, models).isfinite().all())


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_matrix_that_is_not_finite_is_refused(broken, place):
    base, models = matrices((4, 5))
    inputs = inputs_for(METHOD, base, models)
    [base, *models][place][1, 2] = broken
    with pytest.raises(NonFiniteError, match=r"shape \(4, 5\) has NaN or infinite entries"):
        run.merge(METHOD, inputs)


def test_empty_matrices_are_merged():
    empty = torch.zeros(0, 4)
    assert merge(METHOD, empty, [empty, empty]).equal(empty)

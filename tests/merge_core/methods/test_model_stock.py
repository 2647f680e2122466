import pytest
import torch

from merge_core.methods.model_stock import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models, tensor

# By hand: three task vectors that share one entry; each cosine is 1 / 2, so t = 1.5 / 2.
HALF = [tensor(1, 1, 0, 0), tensor(1, 0, 1, 0), tensor(1, 0, 0, 1)]


class TestModelStock(MethodContract):
    method = METHOD


def test_golden_three_models():
    out = merge(METHOD, torch.zeros(4), HALF)
    assert out.tolist() == pytest.approx([0.75, 0.25, 0.25, 0.25], rel=1e-6)


def test_orthogonal_task_vectors_give_the_base():
    base, _ = random_models(3)
    models = [base + torch.eye(3)[i] for i in range(3)]
    assert merge(METHOD, base, models).equal(base)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_equal_task_vectors_give_the_mean(k):
    base, (model, *_) = random_models()
    torch.testing.assert_close(merge(METHOD, base, [model] * k), model, rtol=1e-6, atol=1e-6)


def test_two_opposite_task_vectors_give_the_base():
    base = torch.ones(4)
    assert merge(METHOD, base, [base + HALF[0], base - HALF[0]]).equal(base)


def test_task_vectors_at_a_wide_angle_lead_away_from_the_mean():
    # By hand: cos = -0.6, so t = -1.2 / 0.4 = -3, times the mean (0.2, 0.4).
    out = merge(METHOD, torch.zeros(2), [tensor(1, 0), tensor(-0.6, 0.8)])
    assert out.tolist() == pytest.approx([-0.6, -1.2], rel=1e-5)


def test_every_row_has_its_own_angle_where_that_is_asked_for():
    base, _ = random_models(12)
    base = base.reshape(3, 4)
    deltas = [torch.stack([x, HALF[0], torch.eye(4)[i]]) for i, x in enumerate(HALF)]
    out = merge(METHOD, base, [base + delta for delta in deltas], filter_wise=True) - base
    # By hand: 3/4 of the mean, all of the mean, nothing.
    expected = torch.stack([tensor(0.75, 0.25, 0.25, 0.25), HALF[0], torch.zeros(4)])
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


def test_tensor_of_one_dimension_is_one_row():
    base, models = random_models()
    whole = merge(METHOD, base, models)
    assert merge(METHOD, base, models, filter_wise=True).equal(whole)

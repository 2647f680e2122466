import torch

from merge_core.methods import linear
from merge_core.methods.ram import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models, tensor


class TestRam(MethodContract):
    method = METHOD


def test_golden_five_entries():
    # By hand, base 1: changed by both -> mean; by one -> whole; by none, or by epsilon -> base.
    base = torch.ones(5)
    models = [base + tensor(1, 2, 0, 0, 0.25), base + tensor(3, 0, -5, 0, 0)]
    out = merge(METHOD, base, models, epsilon=0.25)
    assert out.tolist() == [3.0, 3.0, -4.0, 1.0, 1.0]


def test_entries_that_one_model_changed_are_taken_whole():
    base, models = random_models(999)
    owner = torch.arange(999) % 3
    models = [torch.where(owner == i, model, base) for i, model in enumerate(models)]
    out = merge(METHOD, base, models, epsilon=0)
    # base + (model - base): two roundings of values below 8
    expected = torch.stack(models).gather(0, owner.unsqueeze(0))[0]
    torch.testing.assert_close(out, expected, rtol=0, atol=8 * 2 * 2**-24)


def test_entries_that_all_models_changed_are_averaged():
    base, models = random_models()
    out = merge(METHOD, base, models, epsilon=0)
    torch.testing.assert_close(out, merge(linear.METHOD, None, models), rtol=1e-6, atol=1e-6)


def test_models_that_changed_nothing_by_more_than_epsilon_give_the_base():
    base, models = random_models()
    assert merge(METHOD, base, models, epsilon=10).equal(base)

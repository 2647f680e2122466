import math

import pytest
import torch

from merge_core.methods import task_arithmetic
from merge_core.methods.breadcrumbs import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models, tensor


class TestBreadcrumbs(MethodContract):
    method = METHOD


def test_golden_five_entries():
    # By hand, base 1. Of five, floor(0.2 * 5) = 1 of the largest goes, floor(0.4 * 5) = 2 below
    # it stay, and two smallest go; then half of them is added.
    model = 1 + tensor(1, -5, 4, -2, 3)
    out = merge(METHOD, torch.ones(5), [model], density=0.4, gamma=0.2, weight=0.5)
    assert out.tolist() == [1.0, 1.0, 3.0, 1.0, 2.5]


@pytest.mark.parametrize("n", [1, 2, 7, 64, 99, 1000])
@pytest.mark.parametrize("density", [0.1, 0.29, 0.5, 0.85])
@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.1])
def test_share_kept_is_the_share_asked_for_and_the_largest_go(n, density, gamma):
    _, (model, *_) = random_models(n)
    out = merge(METHOD, torch.zeros(n), [model], density=density, gamma=gamma)
    kept = out != 0
    assert int(kept.sum()) == math.floor(density * n)
    assert out[kept].equal(model[kept])
    top = model.abs().argsort(descending=True)[: math.floor(gamma * n)]
    assert not bool(kept[top].any())


def test_largest_go_only_as_far_as_the_density_allows():
    model = tensor(1, -5, 4, -2, 3)
    out = merge(METHOD, torch.zeros(5), [model], density=0.8, gamma=0.6)
    assert out.tolist() == [1.0, 0.0, 4.0, -2.0, 3.0]


def test_density_1_is_task_arithmetic_whatever_gamma():
    base, models = random_models()
    settings = {"weight": [0.2, 0.5, 0.9], "lambda_": 0.8}
    whole = merge(METHOD, base, models, gamma=0.1, **settings)
    assert whole.equal(merge(task_arithmetic.METHOD, base, models, **settings))


def test_kept_entries_have_the_l1_norm_of_all_where_that_is_asked_for():
    _, (model, *_) = random_models(spread=1.0)
    out = merge(METHOD, torch.zeros(1000), [model], density=0.3, rescale=True)
    expected = float(model.double().abs().sum())
    assert float(out.double().abs().sum()) == pytest.approx(expected, rel=1e-6)

import math

import pytest
import torch

from merge_core.methods.sce import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models, tensor


class TestSce(MethodContract):
    method = METHOD


def test_golden_two_models():
    # By hand, base 0: mean squares 10 and 2.5, so weights 0.8 and 0.2. Entry 0: both are positive,
    # 0.8 * 4 + 0.2 * 2 over 1. Entry 1: -2 + 1 < 0, so -2 alone, over its own weight.
    out = merge(METHOD, torch.zeros(2), [tensor(4, -2), tensor(2, 1)])
    assert out.tolist() == pytest.approx([3.6, -2.0], rel=1e-6)


def test_golden_selection():
    # By hand: the variances are 9, 0, 1, 4, so of three floor(0.7 * 3) = 2 stay, entries 0 and 3;
    # the squares there sum to 5 and 85, so weights 1/18 and 17/18, and all signs agree.
    models = [tensor(1, 5, 1, 2), tensor(7, 5, 3, 6)]
    out = merge(METHOD, torch.zeros(4), models, select_topk=0.7)
    assert out.tolist() == pytest.approx([120 / 18, 0, 0, 104 / 18], rel=1e-6)


@pytest.mark.parametrize("share", [0.01, 0.29, 0.5, 0.999])
@pytest.mark.parametrize("n", [1, 7, 99, 1000])
def test_share_selected_is_that_of_the_entries_that_differ(n, share):
    _, models = random_models(n, count=2)
    models = [model.abs() for model in models]  # so that every entry agrees in sign
    models[1] = torch.where(torch.arange(n) % 3 == 1, models[0], models[1])
    differ = int((models[0] != models[1]).sum())
    out = merge(METHOD, torch.zeros(n), models, select_topk=share)
    assert int((out != 0).sum()) == math.floor(share * differ)


def test_equal_entries_of_equal_models_are_kept_where_all_are_selected():
    base, (model, *_) = random_models()
    out = merge(METHOD, base, [model] * 3)
    torch.testing.assert_close(out, model, rtol=1e-6, atol=1e-6)


def test_models_of_next_to_no_change_have_one_weight():
    # By hand: mean squares below 1e-6, so the plain mean and not one weighted by the squares.
    out = merge(METHOD, torch.zeros(1), [tensor(1e-4), tensor(3e-4)])
    assert out.tolist() == pytest.approx([2e-4], rel=1e-6)


def test_one_model_is_returned_but_for_rounding():
    base, (model, *_) = random_models()
    torch.testing.assert_close(merge(METHOD, base, [model]), model, rtol=1e-6, atol=1e-6)

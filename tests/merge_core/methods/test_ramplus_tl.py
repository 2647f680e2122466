import pytest
import torch

from merge_core.methods import ram
from merge_core.methods.ramplus_tl import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models, tensor

MODELS = [tensor(1, 2, 0, 4, 0, 0, 0), tensor(3, 0, 4, 2, 8, 4, 4)]


class TestRamplusTl(MethodContract):
    method = METHOD


def test_golden_two_models():
    # By hand, base 0. Entries 0 and 3 are shared: means. Model 0 shares 2 and has 1 alone: 2, of
    # which alpha = 1 counts, so 1 + 0.5 * 1. Model 1 shares 2 and has 4 alone: 1 + 0.5 * 0.5.
    out = merge(METHOD, torch.zeros(7), MODELS, r=0.5, alpha=1)
    assert out.tolist() == [2.0, 3.0, 5.0, 3.0, 10.0, 5.0, 5.0]


@pytest.mark.parametrize("settings", [{"r": 0}, {"alpha": 0}])
def test_no_strength_or_no_overlap_that_counts_is_ram(settings):
    base, models = random_models()
    models[1] = torch.where(torch.arange(1000) % 2 == 0, models[1], base)
    assert merge(METHOD, base, models, **settings).equal(merge(ram.METHOD, base, models))


def test_models_that_share_nothing_are_not_made_stronger():
    models = [tensor(1, 0), tensor(0, 2)]
    assert merge(METHOD, torch.zeros(2), models, r=1, alpha=1).tolist() == [1, 2]


@pytest.mark.parametrize("epsilon", [0, 1e-5])
def test_models_that_share_everything_are_averaged(epsilon):
    base, models = random_models()
    out = merge(METHOD, base, models, epsilon=epsilon)
    assert out.equal(merge(ram.METHOD, base, models, epsilon=epsilon))

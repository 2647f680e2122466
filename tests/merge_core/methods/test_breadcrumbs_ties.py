import pytest
import torch

from merge_core.methods import breadcrumbs, ties
from merge_core.methods.breadcrumbs_ties import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models, tensor

SETTINGS = {"weight": [0.2, 0.5, 0.9], "lambda_": 0.8}


class TestBreadcrumbsTies(MethodContract):
    method = METHOD


def test_golden_signs_are_elected_among_the_entries_that_were_kept():
    # By hand, base 0. Of four, the largest goes and two below it stay: [0, 4, -3, 0] and
    # [0, -5, -2, 0]. Entry 1: 4 - 5 < 0, so -5 alone; entry 2: both.
    models = [tensor(9, 4, -3, 1), tensor(7, -5, -2, 1)]
    out = merge(METHOD, torch.zeros(4), models, density=0.5, gamma=0.25)
    assert out.tolist() == [0.0, -5.0, -5.0, 0.0]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_gamma_0_is_ties(normalize, density):
    base, models = random_models()
    settings = {**SETTINGS, "density": density, "normalize": normalize}
    out = merge(METHOD, base, models, gamma=0, **settings)
    assert out.equal(merge(ties.METHOD, base, models, **settings))


def test_one_model_is_that_of_breadcrumbs():
    base, (model, *_) = random_models()
    settings = {"density": 0.6, "gamma": 0.1, "weight": 0.7}
    one = merge(METHOD, base, [model], **settings)
    assert one.equal(merge(breadcrumbs.METHOD, base, [model], **settings))

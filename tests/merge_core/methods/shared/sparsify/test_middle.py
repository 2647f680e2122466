import math

import pytest
import torch

from merge_core.methods import breadcrumbs
from merge_core.methods.shared.sparsify.middle import keep_middle
from merge_core.testing import SHAPES
from tests.merge_core.methods.merging import middle, sparse_deltas, tensor


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.001, 0.29, 0.85, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("levels", [2, 1_000_000])
def test_middle_is_that_of_a_plain_sort_also_where_many_are_equal(shape, density, gamma, levels):
    stream = torch.Generator().manual_seed(math.prod(shape))
    delta = torch.randint(-levels, levels + 1, shape, generator=stream).float()
    flat = delta.reshape(-1).tolist()
    order = sorted(range(len(flat)), key=lambda i: (abs(flat[i]), i))
    wanted, top = math.floor(density * len(flat)), math.floor(gamma * len(flat))
    bottom = max(0, len(flat) - wanted - top)
    stay = order if density == 1 else order[bottom : bottom + wanted]
    keep = middle(delta, density, gamma)
    assert keep.shape == shape
    assert (keep_middle(delta, density, gamma) != 0).equal(keep & (delta != 0))
    assert set(keep.reshape(-1).nonzero().reshape(-1).tolist()) == set(stay)


def test_golden_middle():
    # By hand: of five, one of the largest goes (-5), two below it stay (4, 3), two smallest go.
    keep = middle(tensor(1, -5, 4, -2, 3), 0.4, 0.2)
    assert keep.tolist() == [False, False, True, False, True]


def test_every_model_is_trimmed_by_its_own_parameters():
    models = [tensor(1, -5, 4, -2, 3)] * 3
    given = {"density": [1.0, 0.4, 0.4], "gamma": [0.2, 0.2, 0.0]}
    assert [
        x.tolist() for x in sparse_deltas(breadcrumbs.METHOD, torch.zeros(5), models, **given)
    ] == [
        [1, -5, 4, -2, 3],
        [0, 0, 4, 0, 3],
        [0, -5, 4, 0, 0],
    ]

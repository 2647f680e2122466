import pytest
import torch

from merge_core.methods import dare_linear, ties
from merge_core.methods.dare_ties import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models

WEIGHTS = [0.2, 0.5, 0.9]


class TestDareTies(MethodContract):
    method = METHOD


@pytest.mark.parametrize("normalize", [True, False])
def test_density_1_is_ties_with_density_1(normalize):
    base, models = random_models()
    settings = {"weight": WEIGHTS, "normalize": normalize, "lambda_": 0.8}
    assert merge(METHOD, base, models, **settings).equal(
        merge(ties.METHOD, base, models, **settings)
    )


def test_masks_are_those_of_dare_linear():
    base, (model, *_) = random_models()
    settings = {"density": 0.4, "weight": 0.7, "keys": [5]}
    assert merge(METHOD, base, [model], **settings).equal(
        merge(dare_linear.METHOD, base, [model], **settings)
    )


def test_signs_are_elected_among_the_entries_that_were_kept():
    n = 10_000
    up, down = torch.full((n,), 1.0), torch.full((n,), -3.0)
    out = merge(METHOD, torch.zeros(n), [up, down], density=0.5, rescale="none", keys=[1, 2])
    # By hand: both kept -> -3 wins; one kept -> that one; none -> 0. A quarter of the entries each.
    shares = {value: float((out == value).double().mean()) for value in (1.0, -3.0, 0.0)}
    stderr = (0.25 * 0.75 / n) ** 0.5
    assert shares[1.0] == pytest.approx(0.25, abs=4 * stderr)
    assert shares[-3.0] == pytest.approx(0.5, abs=4 * stderr)
    assert shares[0.0] == pytest.approx(0.25, abs=4 * stderr)


def test_order_of_models_does_not_matter_if_their_parameters_move_with_them():
    base, models = random_models()
    forward = merge(METHOD, base, models, weight=WEIGHTS, density=0.5, keys=[1, 2, 3])
    backward = merge(METHOD, base, models[::-1], weight=WEIGHTS[::-1], density=0.5, keys=[3, 2, 1])
    torch.testing.assert_close(forward, backward, rtol=1e-6, atol=1e-6)

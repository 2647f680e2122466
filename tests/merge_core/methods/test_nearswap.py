import pytest
import torch

from merge_core.methods.nearswap import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models, tensor

BASE, (MODEL, *_) = random_models()


class TestNearswap(MethodContract):
    method = METHOD


def test_golden_four_entries():
    # By hand: as near as t is the model; 4 and 8 times as far is 1/4 and 1/8 of the way.
    out = merge(METHOD, tensor(1, 1, 1, 1), [tensor(1.25, 0.5, 2, -1)], t=0.25)
    assert out.tolist() == [1.25, 0.75, 1.25, 0.75]


@pytest.mark.parametrize("t", [0.001, 0.05, 0.2])
def test_every_entry_moves_towards_the_model_by_t_at_most(t):
    base, model = BASE.double(), MODEL.double()
    expected = base + (model - base).clamp(-t, t)
    # values below 8 in two products and a sum
    out = merge(METHOD, BASE, [MODEL], t=t).double()
    torch.testing.assert_close(out, expected, rtol=0, atol=8 * 4 * 2**-24)


def test_t_0_is_the_base_and_a_t_beyond_every_distance_the_model():
    assert merge(METHOD, BASE, [MODEL], t=0).equal(BASE)
    assert merge(METHOD, BASE, [MODEL], t=10).equal(MODEL)


def test_entry_within_1e_6_counts_as_being_that_far():
    # By hand: t / 1e-6 = 1/4 of the way from 0 to 2**-21.
    out = merge(METHOD, tensor(0), [tensor(2**-21)], t=2.5e-7)
    assert out.tolist() == pytest.approx([2**-23], rel=1e-6)

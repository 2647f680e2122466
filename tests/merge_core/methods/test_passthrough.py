import pytest
import torch

from merge_core.methods.passthrough import METHOD
from merge_core.testing import MethodContract, assert_same_bits
from tests.merge_core.methods.merging import merge, random_models, tensor


class TestPassthrough(MethodContract):
    method = METHOD


def test_scale_1_is_the_default_and_gives_the_same_bits():
    _, (model, *_) = random_models()
    assert_same_bits(merge(METHOD, None, [model]), model, "the model was changed")


@pytest.mark.parametrize("scale", [0, 0.5, -2])
def test_model_is_multiplied_by_the_scale(scale):
    out = merge(METHOD, None, [tensor(1, -4, 0.25)], scale=scale)
    assert out.tolist() == [scale, -4 * scale, 0.25 * scale]


def test_half_precision_is_scaled_in_float32():
    out = merge(METHOD, None, [torch.tensor([3.0], dtype=torch.bfloat16)], scale=1 / 3)
    assert out.equal(tensor(3) * (1 / 3))

import math

import pytest
import torch

from merge_core.errors import ParameterError
from merge_core.methods.multislerp import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models, tensor

STREAM = torch.Generator().manual_seed(6)
MODELS = [torch.randn(40, 25, generator=STREAM) for _ in range(3)]
BASE = torch.randn(40, 25, generator=STREAM)


class TestMultislerp(MethodContract):
    method = METHOD


def formula(vectors, weights):
    """The docstring of the method, in float64; ``weights`` sum to 1."""
    vectors = [vector.double() for vector in vectors]
    units = [vector / vector.norm() for vector in vectors]
    mean = sum(w * u for w, u in zip(weights, units, strict=True))
    mean = mean / mean.norm()
    step = sum(w * (u - (u * mean).sum() * mean) for w, u in zip(weights, units, strict=True))
    n = float(step.norm())
    size = sum(w * float(v.norm()) for w, v in zip(weights, vectors, strict=True))
    return (mean * math.cos(n) + step * math.sin(n) / n) * size


@pytest.mark.parametrize("weights", [[0.25, 0.75], [0.5, 0.2, 0.3]])
def test_models_are_merged_as_the_formula_in_float64_says(weights):
    models = MODELS[: len(weights)]
    out = merge(METHOD, None, models, weight=[4 * w for w in weights])
    # entries below 8, under 8 roundings of 2**-24
    torch.testing.assert_close(out.double(), formula(models, weights), rtol=0, atol=8 * 8 * 2**-24)


def test_with_a_base_its_task_vectors_are_merged():
    weights = [0.5, 0.2, 0.3]
    expected = BASE.double() + formula([model - BASE for model in MODELS], weights)
    out = merge(METHOD, BASE, MODELS, weight=weights)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=8 * 8 * 2**-24)


@pytest.mark.parametrize("base", [None, BASE])
def test_one_model_is_returned_as_it_is_whatever_its_weight(base):
    assert merge(METHOD, base, MODELS[:1], weight=0.3).equal(MODELS[0])


def test_golden_two_models_of_one_weight_meet_halfway():
    # By hand: the tangents at the middle cancel out, so (1, 1) / sqrt(2) times 3.
    out = merge(METHOD, None, [tensor(2, 0), tensor(0, 4)])
    assert out.tolist() == pytest.approx([3 * 0.5**0.5] * 2, rel=1e-6)


def test_two_models_that_cancel_out_are_interpolated_on_the_line():
    out = merge(METHOD, None, [tensor(1, 2), tensor(-3, -6)])
    assert out.tolist() == [-1, -2]


def test_three_models_that_cancel_out_are_refused():
    models = [tensor(0, 1), tensor(0, -2), tensor(0, 0)]
    with pytest.raises(ParameterError, match=r"cancel out and have no spherical mean"):
        merge(METHOD, None, models)


def test_tensor_that_no_model_changed_is_that_of_the_base():
    base, _ = random_models()
    for k in (2, 3, 4):
        assert merge(METHOD, base, [base] * k).equal(base)


def test_weights_that_sum_to_zero_are_refused():
    with pytest.raises(ParameterError, match=r"the weights sum to 0 and cannot be normalized"):
        merge(METHOD, None, MODELS[:2], weight=[0.5, -0.5])


def test_weights_are_taken_as_they_are_where_that_is_asked_for():
    models, size = [model / model.norm() for model in MODELS[:2]], 0.2 + 0.4
    out = merge(METHOD, None, models, weight=[0.2, 0.4], normalize_weights=False)
    assert float(out.double().norm()) == pytest.approx(size, rel=1e-6)

import pytest
import torch

from tests.merge_core.methods.merging import largest, middle, probabilities


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (4, 0)])
def test_scalars_and_empty_tensors_are_sparsified(shape):
    delta = torch.ones(shape)
    assert middle(delta, 0.5, 0.1).shape == shape
    assert largest(delta, 0.5).shape == shape
    assert probabilities(delta, 0.5, 0.1).shape == shape

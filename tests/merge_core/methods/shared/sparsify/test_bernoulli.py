import torch

from merge_core.methods import dare_linear
from merge_core.methods.shared.sparsify.bernoulli import BERNOULLI
from merge_core.numerics.bernoulli import kept
from tests.merge_core.methods.merging import shares, sparse_deltas


def test_coins_are_those_of_the_mask_in_the_order_of_the_flat_tensor():
    keep = shares(torch.zeros(16, 33), BERNOULLI, key=9, density=0.4)
    assert keep.reshape(-1).equal(kept(9, 0.4, 16 * 33).float())


def test_models_of_density_1_stay_whole_and_the_others_are_dropped():
    ones = torch.ones(1000)
    whole, half = sparse_deltas(
        dare_linear.METHOD, torch.zeros(1000), [ones, ones], density=[1.0, 0.5], keys=[3, 4]
    )
    assert whole.equal(ones)
    assert (half != 0).equal(kept(4, 0.5, 1000))

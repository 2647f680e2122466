import math

import pytest
import torch

from merge_core.errors import ParameterError
from merge_core.methods import della
from merge_core.methods.shared.sparsify import rank_bernoulli
from merge_core.numerics.bernoulli import kept
from merge_core.testing import SHAPES
from tests.merge_core.methods.merging import probabilities, sparse_deltas, tensor


def test_golden_probabilities():
    # By hand: ranks 0, 2, 1 by size, from 0.5 - 0.25 to 0.5 + 0.25; each row by itself.
    chances = probabilities(torch.tensor([[1.0, -3.0, 2.0], [50.0, 40.0, -30.0]]), 0.5, 0.25)
    assert chances.dtype == torch.float32
    assert chances.tolist() == [[0.25, 0.75, 0.5], [0.75, 0.5, 0.25]]


@pytest.mark.parametrize("shape", SHAPES)
def test_probabilities_of_every_row_have_the_density_as_their_mean(shape):
    """A row is along the second axis also where there are more, as in the dialect."""
    stream = torch.Generator().manual_seed(math.prod(shape))
    chances = probabilities(torch.randn(shape, generator=stream), 0.3, 0.2)
    assert chances.shape == shape
    means = chances.mean(min(1, len(shape) - 1)) if chances.numel() else chances
    torch.testing.assert_close(means, torch.full_like(means, 0.3), rtol=1e-6, atol=0)


def test_equal_entries_rank_by_index():
    assert probabilities(tensor(1, -1, 1), 0.5, 0.25).tolist() == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(("density", "epsilon"), [(0.2, 0.2), (0.75, 0.25), (0.1, 0.3), (0.9, 0.2)])
def test_keep_probability_that_reaches_0_or_1_is_refused(density, epsilon):
    with pytest.raises(ParameterError, match=rf"got density {density} and epsilon {epsilon}"):
        probabilities(torch.ones(3), density, epsilon)


def test_entries_are_dropped_with_the_coins_of_the_mask_in_the_order_of_the_flat_tensor():
    stream = torch.Generator().manual_seed(1)
    delta = torch.randn(16, 33, generator=stream)
    given = {"density": 0.4, "epsilon": 0.2, "keys": [9], "rescale": False}
    (out,) = sparse_deltas(della.METHOD, torch.zeros(16, 33), [delta], **given)
    chances = probabilities(delta, 0.4, 0.2)
    # the coins of the mask: at each probability that occurs, those that stay stay here too
    for chance in chances.unique().tolist():
        here = (chances == chance).reshape(-1)
        coins = kept(9, chance, 16 * 33)
        assert (out != 0).reshape(-1)[here].equal(coins[here])


@pytest.mark.parametrize(
    "shape", [(2, 5, 40), (3, 4, 5, 6), (1, 7, 100), (128, 3, 4), (6, 8), (90,)]
)
def test_ranks_are_found_in_parts_that_do_not_change_them(monkeypatch, shape):
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(2)).mul(4).round()
    whole = probabilities(delta, 0.5, 0.25)
    sizes, sort = [], torch.Tensor.sort
    monkeypatch.setattr(rank_bernoulli, "PART", 64)
    monkeypatch.setattr(
        torch.Tensor, "sort", lambda x, **how: sizes.append(x.numel()) or sort(x, **how)
    )
    assert probabilities(delta, 0.5, 0.25).equal(whole)
    assert sum(sizes) == delta.numel()
    assert max(sizes) <= (64 if len(shape) > 1 else 90)  # a row is sorted whole

import math

import pytest
import torch

from merge_core.errors import ParameterError
from merge_core.methods import breadcrumbs, dare_linear, della, ties
from merge_core.methods.shared.sparsify import EPSILON, GAMMA, rescale
from merge_core.methods.shared.task_vectors import params
from merge_core.numerics.bernoulli import kept
from merge_core.testing import SHAPES
from tests.merge_core.methods.merging import (
    largest,
    merge,
    middle,
    probabilities,
    shares,
    sparse_deltas,
    tensor,
)


def by_hand(delta, density):
    """The entries of largest magnitude, the lowest index first among equals: a plain sort."""
    flat = delta.reshape(-1).tolist()
    count = max(1, math.floor(density * len(flat)))
    order = sorted(range(len(flat)), key=lambda i: (-abs(flat[i]), i))
    return set(order[:count])


def entries(mask):
    return set(mask.reshape(-1).nonzero().reshape(-1).tolist())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.001, 0.29, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("levels", [2, 5, 1_000_000])
def test_largest_are_those_of_a_plain_sort_also_where_many_are_equal(shape, density, levels):
    stream = torch.Generator().manual_seed(math.prod(shape))
    delta = torch.randint(-levels, levels + 1, shape, generator=stream).float()
    keep = largest(delta, density)
    assert keep.shape == shape
    assert entries(keep) == by_hand(delta, density)


def test_lowest_index_goes_first_among_equals():
    assert largest(tensor(2, -1, 1, 1, -2), 0.6).tolist() == [True, True, False, False, True]
    assert largest(torch.zeros(4), 0.5).tolist() == [True, True, False, False]


def test_share_is_that_of_float_arithmetic_as_in_mergekit():
    # 0.29 * 100 is 28.999999999999996
    assert int(largest(torch.arange(100.0), 0.29).sum()) == 28


def test_coins_are_those_of_the_mask_in_the_order_of_the_flat_tensor():
    keep = shares(torch.zeros(16, 33), "coins", key=9, density=0.4)
    assert keep.reshape(-1).equal(kept(9, 0.4, 16 * 33).float())


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # By hand: of -1, 2, -3, 4 the largest two stay; L1 is 10 before and 7 after.
        ("l1", [0, 0, -30 / 7, 40 / 7]),
        (True, [0, 0, -30 / 7, 40 / 7]),
        ("inverse_density", [0, 0, -6, 8]),
        ("none", [0, 0, -3, 4]),
        (False, [0, 0, -3, 4]),
    ],
)
def test_golden_rescales(mode, expected):
    model = tensor(-1, 2, -3, 4)
    out = merge(ties.METHOD, tensor(0, 0, 0, 0), [model], density=0.5, rescale=mode)
    assert out.tolist() == pytest.approx(expected, rel=1e-6)
    assert model.tolist() == [-1, 2, -3, 4]


def test_l1_norm_is_that_of_a_sum_in_float64():
    stream = torch.Generator().manual_seed(5)
    delta = torch.randn(5000, generator=stream) * 10.0 ** torch.randint(-9, 3, (5000,))
    (out,) = sparse_deltas(dare_linear.METHOD, torch.zeros(5000), [delta], density=0.4, keys=[3])
    stays = kept(3, 0.4, 5000)
    factor = float(delta.double().abs().sum() / delta.double().abs()[stays].sum())
    torch.testing.assert_close(out, delta * stays * factor, rtol=1e-6, atol=0)


@pytest.mark.parametrize("delta", [tensor(1e-8, 1e-8), tensor(1e-8, 0)])
def test_l1_rescale_is_left_out_where_there_is_next_to_nothing(delta):
    out = merge(ties.METHOD, tensor(0, 0), [delta], density=0.5, rescale="l1")
    assert out.equal(tensor(1e-8, 0))


def test_models_of_density_1_stay_whole_and_the_others_are_dropped():
    ones = torch.ones(1000)
    whole, half = sparse_deltas(
        dare_linear.METHOD, torch.zeros(1000), [ones, ones], density=[1.0, 0.5], keys=[3, 4]
    )
    assert whole.equal(ones)
    assert entries(half) == entries(kept(4, 0.5, 1000))


@pytest.mark.parametrize("value", [True, False, "l1", "inverse_density", "none"])
def test_rescale_takes_the_flags_of_the_dialect_and_the_names(value):
    assert rescale(True).rule_broken_by(value) is None


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
    assert entries(keep) == set(stay)


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


def test_golden_probabilities():
    # By hand: ranks 0, 2, 1 by size, from 0.5 - 0.25 to 0.5 + 0.25; each row by itself.
    chances = probabilities(torch.tensor([[1.0, -3.0, 2.0], [50.0, 40.0, -30.0]]), 0.5, 0.25)
    assert chances.dtype == torch.float32
    assert chances.tolist() == [[0.25, 0.75, 0.5], [0.75, 0.5, 0.25]]


@pytest.mark.parametrize("shape", SHAPES)
def test_probabilities_of_every_row_have_the_density_as_their_mean(shape):
    stream = torch.Generator().manual_seed(math.prod(shape))
    chances = probabilities(torch.randn(shape, generator=stream), 0.3, 0.2)
    assert chances.shape == shape
    means = chances.reshape(-1, shape[-1]).mean(1)
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


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (4, 0)])
def test_scalars_and_empty_tensors_are_sparsified(shape):
    delta = torch.ones(shape)
    assert middle(delta, 0.5, 0.1).shape == shape
    assert largest(delta, 0.5).shape == shape
    assert probabilities(delta, 0.5, 0.1).shape == shape


def test_parameters_of_a_sparsifying_method_have_the_defaults_asked_for():
    made = {p.name: p for p in params(GAMMA, EPSILON, start=0.3, normalized=True, rescaled=False)}
    names = "weight density gamma epsilon normalize rescale lambda int8_mask"
    assert list(made) == names.split()
    assert (made["density"].default, made["density"].start) == (1.0, 0.3)
    assert (made["normalize"].default, made["rescale"].default) == (True, False)

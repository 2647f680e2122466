import math

import pytest
import torch

from merge_core.errors import ParameterError
from merge_core.mask import kept, kept_each
from merge_core.methods import breadcrumbs, della
from merge_core.methods.declaration import Cut
from merge_core.methods.sparsify import (
    EPSILON,
    GAMMA,
    beyond,
    drawn,
    dropped,
    dropped_by_rank,
    first_largest,
    largest,
    masked,
    middle,
    params,
    probabilities,
    rescale,
    sparsified,
    trimmed,
)
from merge_core.testing import SHAPES
from tests.merge_core.methods.merging import inputs_for, tensor


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
    keep = drawn(torch.zeros(16, 33), 0.4, key=9)
    assert keep.reshape(-1).equal(kept(9, 0.4, 16 * 33))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # By hand: L1 is 10 before and 4 after.
        ("l1", [2.5, 0.0, -7.5, 0.0]),
        (True, [2.5, 0.0, -7.5, 0.0]),
        ("inverse_density", [2.0, 0.0, -6.0, 0.0]),
        ("none", [1.0, 0.0, -3.0, 0.0]),
        (False, [1.0, 0.0, -3.0, 0.0]),
    ],
)
def test_golden_rescales(mode, expected):
    delta, keep = tensor(1, 2, -3, -4), torch.tensor([True, False, True, False])
    assert masked(delta, keep, 0.5, mode).tolist() == expected
    assert delta.tolist() == [1, 2, -3, -4]


@pytest.mark.parametrize("delta", [tensor(5, 1e-8), tensor(1e-8, 1e-8)])
def test_l1_rescale_is_left_out_where_next_to_nothing_is_left(delta):
    keep = torch.tensor([False, True])
    assert masked(delta, keep, 0.5, "l1").equal(tensor(0, 1e-8))


def test_models_of_density_1_stay_whole_and_the_others_are_dropped():
    from merge_core.methods.dare_linear import METHOD

    ones = torch.ones(1000)
    inputs = inputs_for(METHOD, torch.zeros(1000), [ones, ones], density=[1.0, 0.5], keys=[3, 4])
    whole, half = dropped(inputs)
    assert whole.equal(ones)
    assert entries(half) == entries(kept(4, 0.5, 1000))


@pytest.mark.parametrize("value", [True, False, "l1", "inverse_density", "none"])
def test_rescale_takes_the_flags_of_the_dialect_and_the_names(value):
    assert rescale(True).rule_broken_by(value) is None


@pytest.mark.parametrize("count", [0, 1, 3, 5, 9])
def test_as_many_of_the_largest_are_found_as_are_asked_for_or_there_are(count):
    size = tensor(2, 1, 2, 0, 1)
    order = [0, 2, 1, 4, 3]  # by size, then by index
    assert entries(first_largest(size, count)) == set(order[:count])


@pytest.mark.parametrize(
    ("cut", "stay"),
    [
        # By hand, of 2, -1, 1, 1, -2.
        (Cut(1.0, 2), {0, 1, 2, 4}),
        (Cut(1.0, 0), {0, 4}),
        (Cut(1.5, 0), {0, 4}),
        (Cut(0.0, 0), {0, 1, 2, 3, 4}),
        (Cut(2.0, 1), {0}),
        (Cut(3.0, 0), set()),
    ],
)
def test_golden_entries_beyond_a_cut(cut, stay):
    assert entries(beyond(tensor(2, -1, 1, 1, -2), cut)) == stay


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
    keep = middle(delta, density, gamma)
    assert keep.shape == shape
    assert entries(keep) == set(order[bottom : bottom + wanted])


def test_golden_middle():
    # By hand: of five, one of the largest goes (-5), two below it stay (4, 3), two smallest go.
    keep = middle(tensor(1, -5, 4, -2, 3), 0.4, 0.2)
    assert keep.tolist() == [False, False, True, False, True]


def test_every_model_is_trimmed_by_its_own_parameters():
    models = [tensor(1, -5, 4, -2, 3)] * 3
    inputs = inputs_for(
        breadcrumbs.METHOD, torch.zeros(5), models, density=[1.0, 0.4, 0.4], gamma=[0.2, 0.2, 0.0]
    )
    assert [x.tolist() for x in trimmed(inputs)] == [
        [1, -5, 4, -2, 3],
        [0, 0, 4, 0, 3],
        [0, -5, 4, 0, 0],
    ]


def test_chooser_gets_task_vector_parameters_and_place_of_each_model_not_whole():
    calls = []

    def keep(delta, values, i):
        calls.append((delta.tolist(), values["density"], i))
        return delta > 2

    models = [1 + tensor(1, 3), 1 + tensor(2, 6)]
    inputs = inputs_for(
        breadcrumbs.METHOD, torch.ones(2), models, density=[1.0, 0.5], keys=[8, 9], rescale="l1"
    )
    assert [x.tolist() for x in sparsified(inputs, keep)] == [[1, 3], [0, 8]]
    assert calls == [([2, 6], 0.5, 1)]


def test_golden_probabilities():
    # By hand: ranks 0, 2, 1 by size, from 0.5 - 0.25 to 0.5 + 0.25; each row by itself.
    chances = probabilities(torch.tensor([[1.0, -3.0, 2.0], [50.0, 40.0, -30.0]]), 0.5, 0.25)
    assert chances.dtype == torch.float64
    assert chances.tolist() == [[0.25, 0.75, 0.5], [0.75, 0.5, 0.25]]


@pytest.mark.parametrize("shape", SHAPES)
def test_probabilities_of_every_row_have_the_density_as_their_mean(shape):
    stream = torch.Generator().manual_seed(math.prod(shape))
    chances = probabilities(torch.randn(shape, generator=stream), 0.3, 0.2)
    assert chances.shape == shape
    means = chances.reshape(-1, shape[-1]).mean(1)
    torch.testing.assert_close(means, torch.full_like(means, 0.3), rtol=1e-12, atol=0)


def test_equal_entries_rank_by_index():
    assert probabilities(tensor(1, -1, 1), 0.5, 0.25).tolist() == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(("density", "epsilon"), [(0.2, 0.2), (0.75, 0.25), (0.1, 0.3), (0.9, 0.2)])
def test_keep_probability_that_reaches_0_or_1_is_refused(density, epsilon):
    with pytest.raises(ParameterError, match=rf"got density {density} and epsilon {epsilon}"):
        probabilities(torch.ones(3), density, epsilon)


def test_entries_are_dropped_with_the_coins_of_the_mask_in_the_order_of_the_flat_tensor():
    stream = torch.Generator().manual_seed(1)
    delta = torch.randn(16, 33, generator=stream)
    inputs = inputs_for(
        della.METHOD, torch.zeros(16, 33), [delta], density=0.4, epsilon=0.2, keys=[9]
    )
    (out,) = dropped_by_rank(inputs)
    assert entries(out) == entries(kept_each(9, probabilities(delta, 0.4, 0.2).reshape(-1)))


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (4, 0)])
def test_scalars_and_empty_tensors_are_sparsified(shape):
    delta = torch.ones(shape)
    assert middle(delta, 0.5, 0.1).shape == shape
    assert first_largest(delta, 1).shape == shape
    assert probabilities(delta, 0.5, 0.1).shape == shape


def test_parameters_of_a_sparsifying_method_have_the_defaults_asked_for():
    made = {p.name: p for p in params(GAMMA, EPSILON, start=0.3, normalized=True, rescaled=False)}
    names = "weight density gamma epsilon normalize rescale lambda int8_mask"
    assert list(made) == names.split()
    assert (made["density"].default, made["density"].start) == (1.0, 0.3)
    assert (made["normalize"].default, made["rescale"].default) == (True, False)

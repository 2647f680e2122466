import itertools
import math

import pytest
import torch

from merge_core.methods import task_arithmetic
from merge_core.methods.ties import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models, tensor


class TestTies(MethodContract):
    method = METHOD


def by_hand(base, models, weights, densities, normalize):
    """TIES entry by entry, in Python's float64: trim, elect, merge."""
    deltas = []
    for model, density in zip(models, densities, strict=True):
        delta = (model - base).tolist()
        count = max(1, math.floor(density * len(delta)))
        stay = set(sorted(range(len(delta)), key=lambda i: (-abs(delta[i]), i))[:count])
        deltas.append([x if i in stay else 0.0 for i, x in enumerate(delta)])
    out = []
    for i, start in enumerate(base.tolist()):
        terms = [w * delta[i] for w, delta in zip(weights, deltas, strict=True)]
        sign = 1 if sum(terms) >= 0 else -1
        agree = [(x, w) for x, w in zip(terms, weights, strict=True) if x * sign > 0]
        total = sum(w for _, w in agree) or 1.0
        out.append(start + sum(x for x, _ in agree) / (total if normalize else 1))
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("n", [1, 7, 64, 99, 1000])
def test_result_is_that_of_an_entry_by_entry_program(n, normalize):
    base, models = random_models(n)
    weights, densities = [0.5, 0.3, 0.7], [0.5, 0.2, 0.9]
    out = merge(METHOD, base, models, weight=weights, density=densities, normalize=normalize)
    expected = by_hand(base, models, weights, densities, normalize)
    # deltas below 0.5 with under 8 roundings of 2**-24, and one of the sum, below 8
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=0.5 * 8 * 2**-24 + 8 * 2**-24)


def test_golden_three_entries():
    # By hand, base 0. Entry 0: 4 and 2 agree, their mean is 3. Entry 1: 4 - 2 > 0, so 4 alone.
    # Entry 2: -3 + 3 = 0 counts as plus, so 3 alone.
    models = [tensor(4, 4, -3), tensor(2, -2, 3)]
    assert merge(METHOD, torch.zeros(3), models).tolist() == [3.0, 4.0, 3.0]


def test_golden_sum_instead_of_mean():
    models = [tensor(4, 4, -3), tensor(2, -2, 3)]
    out = merge(METHOD, torch.zeros(3), models, normalize=False, weight=[1, 0.5], lambda_=2)
    # By hand: 2*(4 + 1), 2*4, and -3 + 1.5 < 0, so 2*-3.
    assert out.tolist() == [10.0, 8.0, -6.0]


@pytest.mark.parametrize("n", [1, 2, 7, 64, 99, 1000])
@pytest.mark.parametrize("density", [0.001, 0.1, 0.29, 0.5, 0.999])
def test_share_kept_is_the_share_asked_for(n, density):
    base, (model, *_) = random_models(n)
    out = merge(METHOD, base, [model], density=density)
    assert int((out != base).sum()) == max(1, math.floor(density * n))


def test_one_model_whole_is_task_arithmetic():
    base, (model, *_) = random_models()
    ties = merge(METHOD, base, [model], weight=0.7, normalize=False, lambda_=1.3)
    plain = merge(task_arithmetic.METHOD, base, [model], weight=0.7, lambda_=1.3)
    assert ties.equal(plain)


def test_models_that_agree_in_sign_everywhere_are_task_arithmetic():
    base, models = random_models()
    models = [base + (model - base).abs() for model in models]
    ties = merge(METHOD, base, models, normalize=False)
    assert ties.equal(merge(task_arithmetic.METHOD, base, models))


def test_scale_of_the_weights_does_not_matter_where_they_are_normalized():
    base, models = random_models()
    outs = [
        merge(METHOD, base, models, weight=[0.2 * s, 0.5 * s, 0.3 * s], density=0.6) for s in (1, 8)
    ]
    torch.testing.assert_close(*outs, rtol=1e-6, atol=1e-6)


def test_order_of_models_does_not_matter_if_their_parameters_move_with_them():
    base, models = random_models()
    weights, densities = [0.2, 0.5, 0.9], [0.3, 0.9, 0.6]
    outs = [
        merge(
            METHOD,
            base,
            [models[i] for i in order],
            weight=[weights[i] for i in order],
            density=[densities[i] for i in order],
        )
        for order in itertools.permutations(range(3))
    ]
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], rtol=1e-6, atol=1e-6)


def test_model_listed_again_changes_nothing_where_weights_are_normalized():
    base, (model, *_) = random_models()
    outs = [merge(METHOD, base, [model] * k, density=0.4) for k in (1, 2)]
    torch.testing.assert_close(*outs, rtol=1e-6, atol=1e-6)


def test_kept_entries_have_the_l1_norm_of_all_where_that_is_asked_for():
    base, (model, *_) = random_models(spread=1.0)
    zeros = torch.zeros_like(base)
    out = merge(METHOD, zeros, [model], density=0.3, rescale=True)
    assert int((out != 0).sum()) == 300
    assert float(out.double().abs().sum()) == pytest.approx(
        float(model.double().abs().sum()), rel=1e-6
    )


def test_no_model_beside_the_base_gives_the_base():
    base, _ = random_models()
    assert merge(METHOD, base, []).equal(base)


@pytest.mark.parametrize("shape", [(), (0, 4)])
def test_scalar_and_empty_tensors_are_merged(shape):
    out = merge(METHOD, torch.zeros(shape), [torch.ones(shape)], density=0.5)
    assert out.equal(torch.ones(shape))

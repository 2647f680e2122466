import itertools
import math
from dataclasses import replace

import pytest
import torch

from merge_core.contract import Cut
from merge_core.kernels import run
from merge_core.methods import breadcrumbs_ties, dare_ties, della, task_arithmetic
from merge_core.methods.ties import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import inputs_for, merge, random_models, tensor
from tests.merge_core.whole_cuts import cuts


class TestTies(MethodContract):
    method = METHOD


def by_hand(base, models, weights, densities, normalize, consensus):
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
        votes = [math.copysign(bool(x), x) for x in terms] if consensus == "count" else terms
        sign = 1 if sum(votes) >= 0 else -1
        agree = [(x, w) for x, w in zip(terms, weights, strict=True) if x * sign > 0]
        total = sum(w for _, w in agree) or 1.0
        out.append(start + sum(x for x, _ in agree) / (total if normalize else 1))
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("consensus", ["sum", "count"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("n", [1, 7, 64, 99, 1000])
def test_result_is_that_of_an_entry_by_entry_program(n, normalize, consensus):
    base, models = random_models(n)
    weights, densities = [0.5, 0.3, 0.7], [0.5, 0.2, 0.9]
    settings = {"normalize": normalize, "consensus": consensus}
    out = merge(METHOD, base, models, weight=weights, density=densities, **settings)
    expected = by_hand(base, models, weights, densities, **settings)
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


def test_golden_count_of_signs():
    # By hand, base 0: in entry 0 two of three are minus, in entry 1 only 5 and -1 were kept: plus.
    models = [tensor(6, 5), tensor(-2, 1), tensor(-2, -3)]
    settings = {"normalize": False, "density": [1.0, 0.5, 1.0]}
    by_sum = merge(METHOD, torch.zeros(2), models, **settings)
    by_count = merge(METHOD, torch.zeros(2), models, consensus="count", **settings)
    assert (by_sum.tolist(), by_count.tolist()) == ([6.0, 5.0], [-4.0, 5.0])


@pytest.mark.parametrize("other", [dare_ties, breadcrumbs_ties, della])
def test_methods_that_elect_signs_count_them_alike_where_nothing_is_dropped(other):
    base, models = random_models()
    settings = {"weight": [0.2, 0.5, 0.9], "normalize": False, "consensus": "count"}
    outs = [merge(method, base, models, **settings) for method in (METHOD, other.METHOD)]
    assert outs[0].equal(outs[1])
    assert not outs[0].equal(merge(METHOD, base, models, **{**settings, "consensus": "sum"}))


def whole_and_parts(densities, **given):
    """One vector trimmed by itself, and its three tensors trimmed as a whole."""
    base, models = random_models()
    models[0][::3] = base[::3] + 0.25  # many equals
    sizes = [300, 1, 699]
    pieces = [(model - base).split(sizes) for model in models]
    shares = zip(pieces, densities, strict=True)
    found = [cuts(lambda part=part: part, density) for part, density in shares]
    settings = {"density": densities, **given}
    inputs = [
        inputs_for(METHOD, part, [model.split(sizes)[i] for model in models], **settings)
        for i, part in enumerate(base.split(sizes))
    ]
    parts = [
        run.merge(METHOD, replace(x, cuts=[cut[i] for cut in found])) for i, x in enumerate(inputs)
    ]
    return merge(METHOD, base, models, **{**settings, "trim": "tensor"}), torch.cat(parts)


@pytest.mark.parametrize("densities", [[0.5, 0.2, 0.9], [0.01, 0.3, 1.0], [1.0, 1.0, 1.0]])
def test_tensors_trimmed_as_a_whole_are_the_whole_vector_trimmed(densities):
    whole, parts = whole_and_parts(densities, trim="global")
    assert parts.equal(whole)


def test_cuts_are_not_looked_at_where_every_tensor_is_trimmed_by_itself():
    whole, parts = whole_and_parts([0.01, 0.3, 1.0], trim="tensor")
    assert not parts.equal(whole)
    assert parts[300] != whole[300]  # a tensor of one entry keeps it


@pytest.mark.parametrize("given", [(), (None, None, None)])
def test_lone_tensor_is_the_whole_vector(given):
    base, models = random_models()
    inputs = inputs_for(METHOD, base, models, density=0.3, trim="global")
    out = run.merge(METHOD, replace(inputs, cuts=given))
    assert out.equal(merge(METHOD, base, models, density=0.3))


def test_model_of_density_1_stays_whole_whatever_its_cut():
    base, (model, *_) = random_models()
    inputs = inputs_for(METHOD, base, [model], density=1.0, trim="global")
    assert run.merge(METHOD, replace(inputs, cuts=[Cut(math.inf, 0)])).equal(
        merge(METHOD, base, [model])
    )


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

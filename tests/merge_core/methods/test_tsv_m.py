import itertools
import math

import numpy as np
import pytest
import torch

from merge_core.errors import NonFiniteError
from merge_core.kernels import run
from merge_core.methods import task_arithmetic
from merge_core.methods.tsv_m import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import inputs_for, merge, random_models

SHAPES = [(8, 5), (5, 8), (16, 33), (33, 16)]
WEIGHTS = [0.4, 1.0, 1.3]


class TestTsvM(MethodContract):
    method = METHOD


def matrices(shape, count=3, spread=0.1):
    base, models = random_models(math.prod(shape), count, spread=spread)
    return base.reshape(shape), [model.reshape(shape) for model in models]


def by_numpy(base, models, weights, share=1.0):
    """The paper's algorithm with numpy, whitening by (U^T U)^(-1/2) instead of a second SVD."""
    rank = max(1, math.floor(share * min(base.shape) / len(models)))
    parts = [
        np.linalg.svd((model - base).double().numpy(), full_matrices=False) for model in models
    ]
    u = np.concatenate([u[:, :rank] for u, _, _ in parts], 1)
    s = np.concatenate([w * s[:rank] for w, (_, s, _) in zip(weights, parts, strict=True)])
    v = np.concatenate([vt[:rank].T for _, _, vt in parts], 1)
    return base.double() + torch.from_numpy(whitened(u) * s @ whitened(v).T)


def whitened(x):
    values, vectors = np.linalg.eigh(x.T @ x)
    return x @ (vectors / np.sqrt(values)) @ vectors.T


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_result_is_that_of_numpy(shape, share):
    base, models = matrices(shape)
    out = merge(METHOD, base, models, weight=WEIGHTS, rank_share=share)
    # entries below 8 with 3 roundings of 2**-24
    expected = by_numpy(base, models, WEIGHTS, share)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=8 * 3 * 2**-24)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_model_is_task_arithmetic(shape):
    base, (model, *_) = matrices(shape)
    out = merge(METHOD, base, [model], weight=0.7, lambda_=1.3)
    plain = merge(task_arithmetic.METHOD, base, [model], weight=0.7, lambda_=1.3)
    torch.testing.assert_close(out, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_model_of_a_smaller_share_is_its_best_approximation_of_that_rank(shape):
    _, (model, *_) = matrices(shape)
    out = merge(METHOD, torch.zeros(shape), [model], rank_share=0.5)
    u, s, vt = torch.linalg.svd(model.double(), full_matrices=False)
    rank = min(shape) // 2
    expected = u[:, :rank] * s[:rank] @ vt[:rank]
    # entries below 8, rounded once to float32
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=8 * 2**-24)


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_are_those_kept_of_every_model_whatever_their_directions(shape):
    _, models = matrices(shape)
    out = merge(METHOD, torch.zeros(shape), models, weight=WEIGHTS)
    rank = min(shape) // 3
    kept = [
        w * torch.linalg.svdvals(model.double())[:rank]
        for w, model in zip(WEIGHTS, models, strict=True)
    ]
    expected = torch.cat(kept).sort(descending=True).values
    found = torch.linalg.svdvals(out.double())
    # the result is rounded to float32: by 2**-24 of its norm
    error = 2**-24 * float(out.norm())
    torch.testing.assert_close(found[: 3 * rank], expected, rtol=0, atol=error)
    assert float(found[3 * rank :].sum()) <= min(shape) * error


def test_models_of_orthogonal_directions_are_added():
    # By hand: rank floor(4 / 2) each, and nothing to decorrelate.
    base = torch.ones(5, 4)
    one, two = torch.zeros(5, 4), torch.zeros(5, 4)
    one[:2, :2] = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    two[2:4, 2:4] = torch.tensor([[1.0, 0.0], [4.0, -1.0]])
    out = merge(METHOD, base, [base + one, base + two], weight=[1.0, 0.5])
    torch.testing.assert_close(out, base + one + 0.5 * two, rtol=1e-6, atol=1e-6)


def test_model_listed_again_adds_no_direction_of_its_own():
    # By hand: U' = (e, e) / sqrt(2), so each side has half of e f^T: 5/2 + 5/2.
    delta = torch.zeros(4, 4)
    delta[0, 1] = 5.0
    torch.testing.assert_close(merge(METHOD, torch.zeros(4, 4), [delta, delta]), delta)


def test_model_that_changed_nothing_leaves_the_other_as_it_is():
    _, (model, *_) = matrices((6, 4))
    one = merge(METHOD, torch.zeros(6, 4), [model, torch.zeros(6, 4)])
    # By hand: rank floor(4 / 2) of one model alone.
    alone = merge(METHOD, torch.zeros(6, 4), [model], rank_share=0.5)
    assert one.equal(alone)


def test_order_of_models_does_not_matter_if_their_weights_move_with_them():
    base, models = matrices((16, 33))
    outs = [
        merge(METHOD, base, [models[i] for i in order], weight=[WEIGHTS[i] for i in order])
        for order in itertools.permutations(range(3))
    ]
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], rtol=1e-6, atol=1e-6)


def test_transposed_inputs_give_the_transposed_result():
    base, models = matrices((16, 33))
    turned = merge(METHOD, base.T, [model.T for model in models])
    torch.testing.assert_close(turned.T, merge(METHOD, base, models), rtol=1e-6, atol=1e-6)


def test_every_model_has_a_direction_where_there_are_more_models_than_directions():
    # By hand: three rows of one entry; U' = (1, 1, 1) / sqrt(3), V' likewise: the mean.
    models = [torch.full((1, 1), x) for x in (1.0, 2.0, 6.0)]
    assert merge(METHOD, torch.zeros(1, 1), models).item() == pytest.approx(3.0)


@pytest.mark.parametrize("shape", [(), (6,), (2, 3, 4)])
def test_tensor_that_is_no_matrix_gets_the_mean(shape):
    base = torch.ones(shape)
    out = merge(METHOD, base, [base + 2, base + 4], weight=[1.0, 0.5], lambda_=0.5)
    assert out.equal(base + 1)


def test_matrices_of_large_entries_stay_finite():
    base, models = matrices((4, 5), spread=1e30)
    assert bool(merge(METHOD, base, models).isfinite().all())


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_matrix_that_is_not_finite_is_refused(broken, place):
    base, models = matrices((4, 5))
    inputs = inputs_for(METHOD, base, models)
    [base, *models][place][1, 2] = broken
    with pytest.raises(NonFiniteError, match=r"shape \(4, 5\) has NaN or infinite entries"):
        run.merge(METHOD, inputs)


@pytest.mark.parametrize(("value", "rule"), [(0, "0"), (1.01, "1.01")])
def test_share_is_more_than_0_and_at_most_1(value, rule):
    share = METHOD.param("rank_share")
    assert share.rule_broken_by(value) == f"must be in (0, 1], got {rule}"


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_empty_matrices_are_merged(shape):
    empty = torch.zeros(shape)
    assert merge(METHOD, empty, [empty, empty]).equal(empty)

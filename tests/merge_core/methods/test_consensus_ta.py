import itertools

import numpy as np
import pytest
import torch

from merge_core.methods import task_arithmetic
from merge_core.methods.consensus_ta import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models, tensor

WEIGHTS = [0.4, 1.0, 1.3]
LAMBDAS = [0.2, 0.4, 0.6]
ZEROS = torch.zeros(4)


class TestConsensusTa(MethodContract):
    method = METHOD


def by_numpy(base, models, weights, lambdas, agreement):
    """The paper's two formulas in numpy's float32, so that no comparison differs."""
    deltas = np.stack([(model - base).numpy() for model in models])
    total = sum(d * np.float32(w) for d, w in zip(deltas, weights, strict=True))
    masks = [
        np.abs(d) >= np.float32(x) * np.abs(total - d) for d, x in zip(deltas, lambdas, strict=True)
    ]
    return torch.from_numpy(total * (np.sum(masks, 0) >= agreement)) + base


@pytest.mark.parametrize("agreement", [1, 2, 3])
def test_result_is_that_of_the_formulas(agreement):
    base, models = random_models()
    out = merge(METHOD, base, models, weight=WEIGHTS, tall_lambda=LAMBDAS, agreement=agreement)
    assert out.equal(by_numpy(base, models, WEIGHTS, LAMBDAS, agreement))
    assert not out.equal(base)


def test_golden_four_entries():
    # By hand, sums 4.5, 1, 6, 3; tall_lambda 1. Entry 0: 4 >= 0.5, 0.5 < 4: one model's alone.
    # Entry 1: 2 >= 1, 1 < 2: one. Entry 2: 3 >= 3 twice. Entry 3: 3 >= 0, 0 < 3: one.
    models = [tensor(4, 2, 3, 3), tensor(0.5, -1, 3, 0)]
    assert merge(METHOD, ZEROS, models, tall_lambda=1.0).tolist() == [0, 0, 6, 0]
    assert merge(METHOD, ZEROS, models, tall_lambda=0.5).tolist() == [0, 1, 6, 0]
    assert merge(METHOD, ZEROS, models, tall_lambda=[1.0, 0.1], lambda_=2.0).tolist() == [
        9,
        2,
        12,
        0,
    ]


def test_every_model_has_its_own_tall_lambda():
    # By hand, sum 4: the first is in its mask up to 3 / 1, the second up to 1 / 3.
    models = [tensor(3), tensor(1)]
    for ours, agree in [([3, 0.25], 4), ([3.1, 0.25], 0), ([3, 0.4], 0)]:
        assert merge(METHOD, ZEROS[:1], models, tall_lambda=ours).tolist() == [agree]


@pytest.mark.parametrize("agreement", [1, 2, 3])
def test_tall_lambda_0_is_task_arithmetic(agreement):
    base, models = random_models()
    settings = {"weight": WEIGHTS, "lambda_": 0.8}
    out = merge(METHOD, base, models, tall_lambda=0, agreement=agreement, **settings)
    assert out.equal(merge(task_arithmetic.METHOD, base, models, **settings))


def test_agreement_1_drops_only_what_no_model_needs():
    models = [tensor(5, 2), tensor(0, -1.5)]
    # By hand, tall_lambda 2, sums 5 and 0.5: 5 >= 2 * 0; 2 < 2 * 1.5 and 1.5 < 2 * 2.
    assert merge(METHOD, ZEROS[:2], models, tall_lambda=2, agreement=1).tolist() == [5, 0]


def test_more_agreement_than_there_are_models_gives_the_base():
    base, models = random_models()
    assert merge(METHOD, base, models, agreement=4).equal(base)


def test_every_step_of_agreement_keeps_a_part_of_what_the_one_before_kept():
    base, models = random_models()
    kept = [merge(METHOD, base, models, agreement=k) != base for k in (1, 2, 3, 4)]
    for more, fewer in itertools.pairwise(kept):
        assert (more & fewer).equal(fewer)
        assert int(more.sum()) > int(fewer.sum())


def test_order_of_models_does_not_matter_if_their_parameters_move_with_them():
    base, models = random_models()
    outs = [
        merge(
            METHOD,
            base,
            [models[i] for i in order],
            weight=[WEIGHTS[i] for i in order],
            tall_lambda=[LAMBDAS[i] for i in order],
        )
        for order in itertools.permutations(range(3))
    ]
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], rtol=1e-6, atol=1e-6)


def test_agreement_below_1_is_refused():
    agreement = METHOD.param("agreement")
    assert agreement.rule_broken_by(0) == "must be in [1, inf), got 0"
    assert [agreement.rule_broken_by(k) for k in (1, 2, 8)] == [None] * 3


@pytest.mark.parametrize("shape", [(), (0, 4)])
def test_scalar_and_empty_tensors_are_merged(shape):
    out = merge(METHOD, torch.zeros(shape), [torch.ones(shape)] * 2)
    assert out.equal(torch.full(shape, 2.0))

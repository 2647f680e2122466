import torch

from merge_core.methods import dare_linear, della, task_arithmetic
from merge_core.methods.della_linear import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models

N = 20_000


class TestDellaLinear(MethodContract):
    method = METHOD


def test_rows_rank_their_entries_by_themselves():
    small, large = torch.full((N, 1), 1.0), torch.full((N, 1), 3.0)
    model = torch.cat([large, small], 1) * torch.arange(1, N + 1.0).unsqueeze(1)
    settings = {"density": 0.5, "epsilon": 0.3, "rescale": "none"}
    out = merge(METHOD, torch.zeros(N, 2), [model], **settings)
    share = (out != 0).double().mean(0)
    # two entries in a row: the smaller has probability 0.2, the larger 0.8, whatever the row
    assert ((share - torch.tensor([0.8, 0.2])).abs() <= 4 * (0.2 * 0.8 / N) ** 0.5).all()


def test_one_model_is_that_of_della():
    base, (model, *_) = random_models()
    settings = {"density": 0.5, "weight": 0.7, "normalize": False, "keys": [5]}
    one = merge(METHOD, base, [model], **settings)
    assert one.equal(merge(della.METHOD, base, [model], **settings))


def test_density_1_is_task_arithmetic_whatever_epsilon():
    base, models = random_models()
    settings = {"weight": [0.2, 0.5, 0.9], "lambda_": 0.8}
    whole = merge(METHOD, base, models, epsilon=0.3, **settings)
    assert whole.equal(merge(task_arithmetic.METHOD, base, models, **settings))


def test_epsilon_0_is_dare_linear():
    base, models = random_models()
    settings = {"density": [0.3, 0.5, 0.7], "weight": [0.2, 0.5, 0.9]}
    out = merge(METHOD, base, models, epsilon=0, **settings)
    assert out.equal(merge(dare_linear.METHOD, base, models, **settings))

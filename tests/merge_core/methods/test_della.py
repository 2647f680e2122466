import pytest
import torch

from merge_core.errors import ParameterError
from merge_core.methods import dare_ties, ties
from merge_core.methods.della import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models

N = 20_000
PLAIN = {"rescale": "none", "keys": [5]}


class TestDella(MethodContract):
    method = METHOD


def test_large_entries_are_kept_more_often_by_as_much_as_epsilon_says():
    stream = torch.Generator().manual_seed(2)
    model = 1 + torch.randperm(N, generator=stream).float()
    out = merge(METHOD, torch.zeros(N), [model], density=0.4, epsilon=0.3, **PLAIN)
    kept = (out != 0)[model.argsort()].double().reshape(10, -1).mean(1)
    # tenths by rank: probabilities run evenly from 0.1 to 0.7, so their means from 0.13 to 0.67
    expected = 0.1 + 0.6 * (torch.arange(10).double() + 0.5) / 10
    stderr = (expected * (1 - expected) / (N / 10)).sqrt()
    assert ((kept - expected).abs() <= 4 * stderr).all()


@pytest.mark.parametrize(("density", "epsilon"), [(0.5, 0.5), (0.1, 0.2), (0.9, 0.1), (0.95, 0.1)])
def test_probabilities_outside_0_and_1_are_refused(density, epsilon):
    base, models = random_models(7)
    with pytest.raises(ParameterError, match=r"must be in \(0, 1\), got density 0\.\d+ and epsi"):
        merge(METHOD, base, models, density=density, epsilon=epsilon)


def test_rows_of_one_entry_are_kept_with_the_density():
    out = merge(METHOD, torch.zeros(N, 1), [torch.ones(N, 1)], density=0.3, epsilon=0.2, **PLAIN)
    stderr = (0.3 * 0.7 / N) ** 0.5
    assert float(out.double().mean()) == pytest.approx(0.3, abs=4 * stderr)


def test_density_1_is_ties_with_density_1_whatever_epsilon():
    base, models = random_models()
    settings = {"weight": [0.2, 0.5, 0.9], "lambda_": 0.8}
    whole = merge(METHOD, base, models, epsilon=0.3, **settings)
    assert whole.equal(merge(ties.METHOD, base, models, **settings))


def test_epsilon_0_is_dare_ties():
    base, models = random_models()
    settings = {"density": [0.3, 0.5, 0.7], "normalize": False, "rescale": "l1"}
    out = merge(METHOD, base, models, epsilon=0, **settings)
    assert out.equal(merge(dare_ties.METHOD, base, models, **settings))

import pytest
import torch

from merge_core.methods import task_arithmetic
from merge_core.methods.dare_linear import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models

N = 100_000


class TestDareLinear(MethodContract):
    method = METHOD


def dared(delta, **given):
    """The one task vector ``delta`` after the merge onto a base of zeros."""
    return merge(METHOD, torch.zeros_like(delta), [delta], **given)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_share_kept_is_the_density_within_binomial_error(density):
    out = dared(torch.ones(N), density=density, rescale="none")
    stderr = (density * (1 - density) / N) ** 0.5
    assert abs(float((out != 0).double().mean()) - density) <= 4 * stderr


@pytest.mark.parametrize(
    ("rescale", "factor"), [("none", 1.0), (False, 1.0), ("inverse_density", 2.5)]
)
def test_kept_entries_are_those_of_the_delta_times_the_factor(rescale, factor):
    delta = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    out = dared(delta, density=0.4, rescale=rescale)
    keep = out != 0
    torch.testing.assert_close(out[keep], delta[keep] * factor, rtol=2**-23, atol=0)


def test_inverse_density_is_unbiased_over_seeds():
    n, density = 400, 0.3
    delta = torch.randn(50, generator=torch.Generator().manual_seed(0))
    outs = torch.stack(
        [dared(delta, density=density, rescale="inverse_density", keys=[i]) for i in range(n)]
    )
    stderr = delta.abs() * ((1 - density) / density / n) ** 0.5  # Var[m / p] = (1 - p) / p
    assert bool(((outs.mean(0) - delta).abs() <= 4 * stderr).all())


@pytest.mark.parametrize("rescale", [True, "l1"])
@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_l1_rescale_preserves_the_l1_norm(density, rescale):
    delta = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    out = dared(delta, density=density, rescale=rescale)
    # each entry is rounded once, by 2**-24 of itself at most
    before, after = (float(x.double().abs().sum()) for x in (delta, out))
    assert after == pytest.approx(before, rel=2**-24)


def test_nothing_is_rescaled_where_nothing_is_left():
    delta = torch.full((3,), 0.5)
    outs = [dared(delta, density=0.01, keys=[key]) for key in range(5)]
    assert all(set(out.tolist()) <= {0.0, 0.5, 0.75, 1.5} for out in outs)
    assert any(not out.any() for out in outs)


def test_density_1_is_task_arithmetic_whatever_the_rescale():
    base, models = random_models()
    plain = merge(task_arithmetic.METHOD, base, models, weight=[0.2, 0.5, 0.9])
    for rescale in ("l1", "inverse_density", "none"):
        out = merge(METHOD, base, models, weight=[0.2, 0.5, 0.9], density=1.0, rescale=rescale)
        assert out.equal(plain)


def test_models_have_masks_of_their_own_which_do_not_change_when_another_leaves():
    base, (one, two, _) = random_models(N)
    zeros = torch.zeros_like(base)
    settings = {"density": 0.5, "rescale": "none"}
    first = merge(METHOD, zeros, [one], keys=[1], **settings)
    second = merge(METHOD, zeros, [two], keys=[2], **settings)
    both = merge(METHOD, zeros, [one, two], keys=[1, 2], **settings)
    assert both.equal(first + second)
    together = float(((first != 0) & (second != 0)).double().mean())
    assert together == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / N) ** 0.5)


def test_entries_kept_at_a_density_are_kept_at_every_higher_one():
    low, high = (dared(torch.ones(1000), density=x, rescale="none") for x in (0.3, 0.6))
    assert bool((high[low != 0] != 0).all())

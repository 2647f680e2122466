import pytest
import torch

from merge_core.methods import dare_linear, ties
from merge_core.methods.shared.sparsify.rescale import rescale
from merge_core.numerics.bernoulli import kept
from tests.merge_core.methods.merging import merge, sparse_deltas, tensor


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


@pytest.mark.parametrize("value", [True, False, "l1", "inverse_density", "none"])
def test_rescale_takes_the_flags_of_the_dialect_and_the_names(value):
    assert rescale(True).rule_broken_by(value) is None

import pytest
import torch

from merge_core.errors import ParameterError
from merge_core.methods import slerp
from merge_core.methods.nuslerp import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge

STREAM = torch.Generator().manual_seed(8)
A, B, BASE = (torch.randn(16, 33, generator=STREAM) for _ in range(3))
ROWS = {"nuslerp_flatten": False}
COLUMNS = {"nuslerp_flatten": False, "nuslerp_row_wise": True}


class TestNuslerp(MethodContract):
    method = METHOD


@pytest.mark.parametrize("settings", [{}, ROWS, COLUMNS])
def test_all_weight_on_one_model_gives_that_model(settings):
    assert merge(METHOD, None, [A, B], weight=[0.7, 0], **settings).equal(A)
    assert merge(METHOD, None, [A, B], weight=[0, 0.7], **settings).equal(B)


def test_one_vector_for_the_tensor_is_slerp_by_the_ratio_of_the_weights():
    out = merge(METHOD, None, [A, B], weight=[0.6, 0.2])
    torch.testing.assert_close(out, merge(slerp.METHOD, A, [B], t=0.25), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("settings", "dim"), [(ROWS, 1), (COLUMNS, 0)])
def test_norm_of_vectors_of_one_norm_is_preserved(settings, dim):
    a, b = (3 * x / x.norm(dim=dim, keepdim=True) for x in (A, B))
    norms = merge(METHOD, None, [a, b], weight=[0.3, 0.9], **settings).double().norm(dim=dim)
    torch.testing.assert_close(norms, torch.full_like(norms, 3), rtol=1e-6, atol=0)


def test_every_row_is_a_slerp_of_its_own():
    out = merge(METHOD, None, [A, B], weight=[0.25, 0.75], **ROWS)
    for row, a, b in zip(out, A, B, strict=True):
        alone = merge(slerp.METHOD, a, [b], t=0.75)
        torch.testing.assert_close(row, alone, rtol=1e-6, atol=1e-6)


def test_columns_are_the_rows_of_the_transposed_tensors():
    turned = merge(METHOD, None, [A.T.contiguous(), B.T.contiguous()], weight=[0.3, 0.9], **ROWS)
    assert merge(METHOD, None, [A, B], weight=[0.3, 0.9], **COLUMNS).equal(turned.T)


def test_a_column_of_a_tensor_of_three_axes_is_what_its_first_axis_holds():
    a, b = A.reshape(16, 3, 11), B.reshape(16, 3, 11)
    flat = merge(METHOD, None, [A, B], weight=[0.3, 0.9], **COLUMNS)
    out = merge(METHOD, None, [a, b], weight=[0.3, 0.9], **COLUMNS)
    assert out.equal(flat.reshape(16, 3, 11))


@pytest.mark.parametrize("settings", [{}, ROWS, COLUMNS])
def test_with_a_base_its_task_vectors_are_interpolated_and_added(settings):
    deltas = merge(METHOD, None, [A - BASE, B - BASE], weight=[0.3, 0.9], **settings)
    out = merge(METHOD, BASE, [A, B], weight=[0.3, 0.9], **settings)
    assert out.equal(BASE + deltas)


@pytest.mark.parametrize("weight", [0.0, [0.5, -0.5]])
def test_weights_that_sum_to_zero_give_the_middle(weight):
    middle = merge(METHOD, None, [A, B], weight=1.0)
    assert merge(METHOD, None, [A, B], weight=weight).equal(middle)


@pytest.mark.parametrize("settings", [{}, ROWS, COLUMNS])
@pytest.mark.parametrize("factor", [2.0, 3.0, -1.0, -3.0])
def test_vectors_of_the_same_or_opposite_ways_are_interpolated_on_the_line(factor, settings):
    out = merge(METHOD, None, [A, factor * A], weight=[0.6, 0.2], **settings)
    expected = A.double() * (0.75 + 0.25 * factor)
    torch.testing.assert_close(out.double(), expected, rtol=1e-6, atol=4 * 8 * 2**-24)


@pytest.mark.parametrize(("base", "models"), [(BASE, [A]), (None, [A, B, A])])
def test_any_other_number_of_models_than_two_is_refused(base, models):
    with pytest.raises(ParameterError, match=rf"two models beside the base, got {len(models)}"):
        merge(METHOD, base, models)

import torch

from merge_core.methods.arcee_fusion import METHOD
from merge_core.testing import MethodContract
from tests.merge_core.methods.merging import merge, random_models, tensor


class TestArceeFusion(MethodContract):
    method = METHOD


def test_golden_one_row():
    # By hand, base 0. One row has one divergence, so sizes decide: of 1..8 and 14 the entries at
    # floor(8 q) are 3, 5 and 7, and 5 + 1.5 * (7 - 3) = 11 leaves only the 14.
    model = tensor(4, -1, 14, 2, -8, 3, 5, 6, -7)
    out = merge(METHOD, torch.zeros(9), [model])
    assert out.tolist() == [0, 0, 14, 0, 0, 0, 0, 0, 0]


def test_row_whose_distribution_stays_is_left_however_far_its_entries_moved():
    base = torch.arange(18.0).reshape(2, 9)
    moved = tensor(4, -1, 14, 2, -8, 3, 5, 6.5, -7)
    out = merge(METHOD, base, [torch.stack([base[0] + 100, base[1] + moved])])
    # By hand: nine zeros, then 1..5, 6.5, 7, 8, 14 times one divergence; at floor(17 q) are 0, 0
    # and 4, and 0 + 1.5 * 4 = 6 leaves the last four.
    assert out[0].equal(base[0])
    assert (out[1] - base[1]).tolist() == [0, 0, 14, 0, -8, 0, 0, 6.5, -7]


def test_every_entry_is_that_of_the_base_or_that_of_the_model():
    base, (model, *_) = random_models(1056)
    base, model = base.reshape(16, 66), model.reshape(16, 66)
    out = merge(METHOD, base, [model])
    taken = out != base
    # base + (model - base) is the model but for two roundings of 2**-24 of values below 8
    assert ((out - model).abs()[taken] <= 8 * 2 * 2**-24).all()
    assert 0 < int(taken.sum()) < 1056 // 4


def test_tensor_of_one_dimension_is_one_row():
    base, (model, *_) = random_models(99)
    as_row = merge(METHOD, base.reshape(1, 99), [model.reshape(1, 99)])
    assert merge(METHOD, base, [model]).equal(as_row.reshape(99))

import pytest

from merge_core.methods import iso_c, tsv_m
from tests.merge_core.methods.merging import merge, tensor


@pytest.mark.parametrize("method", [iso_c.METHOD, tsv_m.METHOD], ids=["iso_c", "tsv_m"])
def test_golden_mean_of_vectors(method):
    # By hand: half of 0.5 (2, 0) + 2 (0, 4) is (0.5, 4).
    out = merge(method, tensor(1, 1), [tensor(3, 1), tensor(1, 5)], weight=[0.5, 2], lambda_=2)
    assert out.tolist() == [2.0, 9.0]

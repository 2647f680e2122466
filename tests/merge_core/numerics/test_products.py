import pytest
import torch

from merge_core.numerics.products import low_rank_sum
from merge_core.testing import assert_same_bits, threads

STREAM = torch.Generator().manual_seed(3)
SHAPES = [(1, 1, 1), (5, 7, 2), (256, 40, 8), (257, 40, 8), (1025, 3, 4), (700, 64, 90), (0, 4, 2)]


def parts(m, n, r, dtype=torch.bfloat16):
    weight = torch.randn(m, n, generator=STREAM).to(dtype)
    return weight, torch.randn(m, r, generator=STREAM), torch.randn(r, n, generator=STREAM)


@pytest.mark.parametrize("shape", SHAPES)
def test_sum_is_that_of_exact_arithmetic(shape):
    weight, left, right = parts(*shape)
    exact = weight.double() + 0.7 * left.double() @ right.double()
    size = weight.double().abs() + 0.7 * left.double().abs() @ right.double().abs()
    found = low_rank_sum(weight, left, right, 0.7)
    assert found.dtype == torch.float32
    assert bool(((found - exact).abs() <= (shape[2] + 3) * 2**-24 * size).all())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turned", [False, True])
def test_bits_do_not_depend_on_the_number_of_threads(shape, turned):
    weight, left, right = parts(*shape)
    if turned:
        left, right = (x.T.contiguous().T for x in (left, right))
    found = []
    for count in (1, 2, 5):
        with threads(count):
            found.append(low_rank_sum(weight, left, right, 0.7))
            assert torch.get_num_threads() == count
    for other in found[1:]:
        assert_same_bits(found[0], other, "other bits on more threads")

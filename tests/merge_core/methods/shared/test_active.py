import pytest
import torch

from merge_core.contract import Block
from merge_core.methods.shared.active import EPSILON, counted
from tests.merge_core.methods.merging import random_models, tensor


def block_of(base, models, epsilon):
    return Block(models, base, {"epsilon": [epsilon]}, (), {}, {}, None)


def test_golden_counts():
    # By hand: an entry that moved by epsilon exactly has not moved by more.
    base = tensor(1, 1, 1, 1)
    models = [base + tensor(1, 0, 0.5, 0), base + tensor(-2, 0.75, 0.5, 0)]
    deltas, active, count = counted(block_of(base, models, 0.5))
    assert [delta.tolist() for delta in deltas] == [[1, 0, 0.5, 0], [-2, 0.75, 0.5, 0]]
    assert [where.tolist() for where in active] == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
    ]
    assert count.tolist() == [2, 1, 0, 0]
    assert count.dtype == torch.float32


def test_count_is_the_number_of_active_models():
    base, models = random_models(99)
    _, active, count = counted(block_of(base, models, 0.1))
    assert count.equal(torch.stack(active).sum(0))


@pytest.mark.parametrize(("value", "refused"), [(0, False), (1e-5, False), (-1e-9, True)])
def test_epsilon_is_not_negative(value, refused):
    assert bool(EPSILON.rule_broken_by(value)) == refused

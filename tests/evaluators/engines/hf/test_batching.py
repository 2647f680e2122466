from __future__ import annotations

import pytest
import torch

from evaluators.engines.hf.batching import Budget, padded, widened
from merge_core.rounding import is_asked_for


@pytest.mark.parametrize("length", [2, 64, 65, 100, 129, 500, 2048])
def test_a_padded_context_has_padding_of_half_at_most(length):
    assert length - 1 < padded(length) <= max(64, length * 3 // 2)


@pytest.mark.parametrize("width", [32, 64, 128, 256, 1024])
def test_a_row_of_a_product_has_the_same_bits_however_many_there_are(width):
    """What every block of items rests on; a few rows have kernels of their own on some machines.

    Processors of other makers than Intel have no strict mode: there whole contexts are looked at.
    """
    fewest = 1 if is_asked_for() else padded(2)
    stream = torch.Generator().manual_seed(0)
    weight, rows = (torch.randn(n, width, generator=stream) for n in (96, 130))
    whole = torch.nn.functional.linear(rows, weight)
    for count in range(fewest, 130, fewest):
        assert torch.nn.functional.linear(rows[:count].clone(), weight).equal(whole[:count]), count


def test_a_lone_token_is_not_padded():
    assert padded(1) == 0


def test_a_continuation_is_widened_by_a_half_at_most():
    assert all(n <= widened(n) <= n * 3 / 2 for n in range(1, 600))


def test_a_batch_that_does_not_fit_is_halved_and_the_size_remembered():
    budget = Budget(torch.device("cpu"), most_rows=12)
    sizes = []

    def step(rows):
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("no room")
        return list(rows)

    found = [list(budget.batches(range(12), 100, step)) for _ in range(2)]
    assert [[row for part in parts for row in part] for parts in found] == [list(range(12))] * 2
    assert sizes == [12, 6, 3, 3, 3, 3, 3, 3, 3, 3]


def test_one_row_that_does_not_fit_passes_the_error_on():
    def step(rows):
        raise torch.OutOfMemoryError("no room")

    budget = Budget(torch.device("cpu"), most_rows=2)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        list(budget.batches(range(3), 100, step))

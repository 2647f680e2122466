from __future__ import annotations

import random

import pytest
import torch

from evaluators.engines.hf.kv_cache import Memory


def tensor(rows: int, length: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 2, length, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
def test_copied_rows_are_the_rows_asked_for_whatever_the_memory_held(seed):
    draw, memory = random.Random(seed), Memory()
    sources = [tensor(6, seed=1), tensor(6, seed=2), tensor(6, length=7)]
    for _ in range(60):
        memory.again()
        old, room = draw.choice(sources), draw.choice([1, 3])
        rows = [draw.randrange(6) for _ in range(draw.randint(1, 9))]
        held = memory.copied(old, rows, room)
        assert torch.equal(held[:, :, : old.shape[2]], old[rows])
        held[:, :, old.shape[2] :] = 9.0  # what is read on goes behind
        if draw.random() < 0.2:
            memory.again().empty(old, 6, 6).fill_(8.0)  # another use between


def test_two_blocks_of_one_use_do_not_overlap():
    memory = Memory()
    first = memory.empty(tensor(1), 3, 4).fill_(1.0)
    memory.empty(tensor(1), 3, 4).fill_(2.0)
    assert bool((first == 1.0).all())


def test_memory_is_used_again_after_its_use_and_grows_where_it_must():
    memory, like = Memory(), tensor(1)
    first = memory.empty(like, 3, 4)
    assert memory.again().empty(like, 2, 5).data_ptr() == first.data_ptr()
    assert memory.again().empty(like, 9, 9).shape == (9, 2, 9, 4)

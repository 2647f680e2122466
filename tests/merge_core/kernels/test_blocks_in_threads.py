"""Blocks are merged by several threads: the same bits, in place, and their errors are told."""

from __future__ import annotations

import pytest
import torch

from merge_core.contract import Inputs
from merge_core.errors import MethodError
from merge_core.kernels.eager import BLOCK
from merge_core.kernels.run import merge
from merge_core.methods.registry import method


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def inputs():
    torch.manual_seed(0)
    models = [torch.randn(5 * BLOCK + 3).bfloat16() for _ in range(2)]
    return Inputs(models, None, [{"weight": 0.3}, {"weight": 0.4}], {"normalize": True}, [0, 0])


def test_several_threads_give_the_bits_of_one(threads):
    threads(1)
    one = merge(method("linear"), inputs(), dtype=torch.bfloat16)
    threads(4)
    assert torch.equal(merge(method("linear"), inputs(), dtype=torch.bfloat16), one)
    assert torch.get_num_threads() == 4


def test_a_live_parameter_is_written_in_place_by_every_thread(threads):
    threads(4)
    live = torch.nn.Parameter(torch.zeros(5 * BLOCK + 3))
    with torch.no_grad():
        merge(method("linear"), inputs(), live)
    assert torch.equal(live, merge(method("linear"), inputs()))
    assert live.grad_fn is None


def test_a_block_of_the_wrong_shape_is_refused_from_a_thread(threads):
    from dataclasses import replace

    threads(4)
    with pytest.raises(MethodError):
        merge(replace(method("linear"), entry=lambda block: block.models[0][1:]), inputs())

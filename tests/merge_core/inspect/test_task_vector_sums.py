"""The sums alone; what they are sums of is in test_inspection.py."""

import pytest
import torch

from merge_core.inspect import task_vector_sums
from merge_core.inspect.task_vector_sums import Product, Sums, Vector


@pytest.fixture
def stack():
    stream = torch.Generator().manual_seed(5)
    return torch.randn(4, 150, 401, generator=stream)


def test_sums_do_not_depend_on_the_thread_count(stack):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = task_vector_sums._streamed(stack[0], list(stack[1:]))
        torch.set_num_threads(2)
        two = task_vector_sums._streamed(stack[0], list(stack[1:]))
    finally:
        torch.set_num_threads(before)
    assert one == two


def test_size_of_the_blocks_does_not_matter(stack, monkeypatch):
    whole, _ = task_vector_sums._streamed(stack[0], list(stack[1:]))
    monkeypatch.setattr(task_vector_sums, "BLOCK", 1000)
    parts, products = task_vector_sums._streamed(stack[0], list(stack[1:]))
    assert [x.entries for x in parts] == [150 * 401] * 3
    assert [x.squares for x in parts] == pytest.approx([x.squares for x in whole], rel=1e-13)
    assert all(x.signed == 150 * 401 for x in products)


def test_sums_of_different_models_stay_apart_and_of_the_same_add_up():
    one, two = Vector(*range(1, 8)), Vector(*[10.0] * 7)
    product = Product(*range(1, 6))
    a = Sums(3, ("base",), {"one": one}, {("one", "two"): product})
    b = Sums(4, ("base", "other"), {"one": one, "two": two}, {("one", "two"): product})
    assert a.plus(b) == Sums(
        7,
        ("base", "other"),
        {"one": Vector(2, 4, 6, 8, 10, 12, 14), "two": two},
        {("one", "two"): Product(2, 4, 6, 8, 10)},
    )

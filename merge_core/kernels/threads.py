"""Work that is cut by the size of the data alone, and shared among as many threads as there are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")


def share(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Return ``work`` of all parts, by as many threads as torch may use.

    In each of them torch uses one thread. What is done to a part must not depend on other parts, so
    the number of threads changes nothing.
    """
    import torch

    threads = min(torch.get_num_threads(), len(parts))
    with one_thread():
        return list(map(work, parts)) if threads < 2 else list(_pool(threads).map(work, parts))


def spans(count: int, most: int) -> list[tuple[int, int]]:
    """Return starts and ends of spans of at most ``most``; of nearly one size, none is a rest."""
    parts = -(-count // most)
    return [(i * count // parts, (i + 1) * count // parts) for i in range(parts)]


def use(count: int) -> None:
    """Let this process use so many threads of the CPU, at least 1, from now on."""
    import torch

    torch.set_num_threads(count)


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    import torch

    return ThreadPoolExecutor(threads, "mergetune", torch.set_num_threads, (1,))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, for matrix products and decompositions.

    The number is the process's: not for use in several threads.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

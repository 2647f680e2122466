"""Low-rank sums on all threads, with bits that do not depend on how many there are.

A product that torch shares among threads is cut by their number, and so may be its sums. Here rows
are cut into blocks by the shape alone, one thread computes a block, and threads share the blocks.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

from merge_core.contract import Tensor
from merge_core.numerics.exact_sums import one_thread

ROWS = 256  # of a block, at most


def low_rank_sum(weight: Tensor, left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Return ``weight + scale * left @ right``, ``(m, n)`` float32: two roundings an entry.

    On a CPU all threads that torch may use share the work, block by block in the cache.

    Args:
        weight: ``(m, n)`` of any float type.
        left: ``(m, r)`` float32.
        right: ``(r, n)`` float32.
        scale: Of the product.
    """
    import torch

    out = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
    rows = [slice(*ends) for ends in _blocks(len(out), ROWS if out.device.type == "cpu" else None)]

    def make(part: slice) -> None:
        with torch.no_grad():  # each thread has a setting of its own
            torch.mm(left[part], right, out=out[part])
            out[part].mul_(scale).add_(weight[part].float())  # alpha= might fuse the two

    threads = min(torch.get_num_threads(), len(rows))
    with one_thread():
        if threads < 2:
            for part in rows:
                make(part)
        else:
            list(_pool(threads).map(make, rows))
    return out


def _blocks(count: int, most: int | None) -> list[tuple[int, int]]:
    """Return the ends of blocks of at most ``most`` rows, of nearly one size: none is a rest."""
    parts = 1 if most is None else max(1, -(-count // most))
    return [(i * count // parts, (i + 1) * count // parts) for i in range(parts)]


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return a pool of threads in each of which torch uses one thread."""
    import torch

    return ThreadPoolExecutor(threads, "products", torch.set_num_threads, (1,))

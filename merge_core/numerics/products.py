"""Low-rank sums on all threads, with bits that do not depend on how many there are.

A product that torch shares among threads is cut by their number, and so may be its sums. Here rows
are cut into blocks by the shape alone, one thread computes a block, and threads share the blocks.
"""

from __future__ import annotations

from merge_core.contract import Tensor
from merge_core.kernels.threads import share, spans

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

    def make(rows: tuple[int, int]) -> None:
        part = slice(*rows)
        with torch.no_grad():  # each thread has a setting of its own
            torch.mm(left[part], right, out=out[part])
            out[part].mul_(scale).add_(weight[part].float())  # alpha= might fuse the two

    share(make, spans(len(out), ROWS if out.device.type == "cpu" else max(1, len(out))))
    return out

"""Question: what do sums of a weight and a LoRA product cost, against one thread on whole matrices?

Prints milliseconds of both for some ranks, their ratio, and how many bits differ: none may. The
least of several runs, the two in turn.

    python benchmarks/low_rank_sums.py --rows 4096 --columns 4096 --threads 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from merge_core.kernels.threads import one_thread
from merge_core.numerics.products import low_rank_sum


def whole(weight: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the sum by one product of one thread, as it was before."""
    with one_thread():
        product = left @ right
    return product.mul_(0.7).add_(weight.float())


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Multiply, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{'rank':>5} {'whole ms':>9} {'blocks ms':>10} {'ratio':>6} {'differ':>7}")
    for rank in (4, 16, 64, 256):
        weight = torch.randn(arguments.rows, arguments.columns).bfloat16()
        left, right = torch.randn(arguments.rows, rank), torch.randn(rank, arguments.columns)
        times = [
            (
                seconds(lambda given=(weight, left, right): whole(*given)),
                seconds(lambda given=(weight, left, right): low_rank_sum(*given, 0.7)),
            )
            for _ in range(arguments.runs)
        ]
        one, blocks = (min(column) for column in zip(*times, strict=True))
        differ = int((whole(weight, left, right) != low_rank_sum(weight, left, right, 0.7)).sum())
        print(f"{rank:5} {one * 1e3:9.1f} {blocks * 1e3:10.1f} {one / blocks:6.2f} {differ:7}")


if __name__ == "__main__":
    main()

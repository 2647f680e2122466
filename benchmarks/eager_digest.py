"""Question: what does the weights digest cost without a compiler, against the compiled kernel?

Prints milliseconds of one thread's own time (so a busy machine matters little) for a tensor larger
than the caches, by kernel and by blocks, and their ratio.

    python benchmarks/eager_digest.py --mib 256
"""

from __future__ import annotations

import argparse
import time

import torch

from merge_core.numerics.weights_hash import digest_and_finiteness


def seconds(tensor: torch.Tensor, *, fuse: bool) -> float:
    """Return the time that the calling thread is busy with one digest."""
    start = time.thread_time()
    digest_and_finiteness("w", tensor, fuse=fuse)
    return time.thread_time() - start


def main() -> None:
    """Hash, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'type':>9} {'kernel ms':>10} {'blocks ms':>10} {'ratio':>6}")
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        tensor = torch.randn(arguments.mib * 2**20 // dtype.itemsize).to(dtype)
        seconds(tensor, fuse=True)  # compiles
        runs = [[seconds(tensor, fuse=x) for x in (True, False)] for _ in range(arguments.runs)]
        kernel, blocks = (min(column) * 1e3 for column in zip(*runs, strict=True))
        print(f"{str(dtype)[6:]:>9} {kernel:10.1f} {blocks:10.1f} {blocks / kernel:6.2f}")


if __name__ == "__main__":
    main()

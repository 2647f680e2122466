"""Question: what do the decompositions of ``tsv_m`` and ``iso_c`` cost as matrices grow?

Prints seconds of one thread's own time and MiB at most for a matrix, and how both grow from row to
row: with a longer side they grow like the entries, with both sides like entries times side. The
last column is how far the same by the Gram matrix of the shorter side is from it (the largest
difference of the nearest isometries, for singular values from 1 down to 1e-6): why it is not used.

    python benchmarks/decompositions.py --side 512
"""

from __future__ import annotations

import argparse
import time

import torch
from memory import Peak

from merge_core.numerics.svd import decomposed


def matrix(rows: int, columns: int) -> torch.Tensor:
    """Return a matrix whose singular values fall from 1 to 1e-6."""
    left, _ = torch.linalg.qr(torch.randn(rows, columns).double())
    right, _ = torch.linalg.qr(torch.randn(columns, columns).double())
    return (left * torch.logspace(0, -6, columns, dtype=torch.float64)) @ right


def by_gram(x: torch.Tensor) -> torch.Tensor:
    """Return the nearest isometry by the eigenvectors of ``x^T x``."""
    values, vectors = torch.linalg.eigh(x.T @ x)
    return x @ (vectors / values.clamp(min=1e-300).sqrt()) @ vectors.T


def main() -> None:
    """Decompose, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=512)
    side = parser.parse_args().side
    torch.set_num_threads(1)
    print(f"{'shape':>16} {'seconds':>8} {'MiB':>7} {'grew':>12} {'by Gram off by':>15}")
    last = None
    for rows, columns in [(side, side), (4 * side, side), (16 * side, side), (2 * side, 2 * side)]:
        x = matrix(rows, columns)
        with Peak() as peak:
            before, start = peak.bytes, time.thread_time()
            u, _, vt = decomposed(x)
            seconds = time.thread_time() - start
        taken = (peak.bytes - before) / 2**20
        grew = "" if last is None else f"{seconds / last[0]:.1f}, {taken / last[1]:.1f}"
        off = float((u @ vt - by_gram(x)).abs().max())
        shape = f"{rows} x {columns}"
        print(f"{shape:>16} {seconds:8.2f} {taken:7.0f} {grew:>12} {off:15.1e}")
        last = seconds, taken


if __name__ == "__main__":
    main()

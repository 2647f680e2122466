"""Question: how much memory do DELLA's ranks take while they are found, beside the table itself?

Prints, for tensors of as many entries but other shapes, MiB of the table (two bytes an entry), MiB
at most beside it, and their ratio: a row is sorted whole, and nothing larger than 2**20 entries.

    python benchmarks/rank_memory.py --millions 32
"""

from __future__ import annotations

import argparse

import torch
from memory import Peak

from merge_core.contract import Inputs
from merge_core.methods.shared.sparsify.rank_bernoulli import _ranks


def main() -> None:
    """Rank, watch, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, default=32)
    n = parser.parse_args().millions * 2**20
    print(f"{'shape':>20} {'table MiB':>10} {'beside':>8} {'ratio':>6}")
    for shape in [(n // 4096, 4096), (128, n // 128 // 64, 64), (2, 1024, n // 2048), (n,)]:
        model, base = (torch.randn(shape).bfloat16() for _ in range(2))
        with Peak() as peak:
            before = peak.bytes
            table = _ranks(Inputs([model], base, (), {}, ()), 0)
        held = table.numel() * 2
        beside = peak.bytes - before - held
        print(f"{shape!s:>20} {held / 2**20:10.0f} {beside / 2**20:8.0f} {beside / held:6.2f}")


if __name__ == "__main__":
    main()

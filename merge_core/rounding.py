"""How products of matrices round: what is asked of Intel's MKL before its first one.

On Intel's processors MKL has kernels of their own for a few rows, and with AVX2 for most counts of
rows: the last bits of a row depend on how many there are, so a score on what is asked beside it.
In its strict mode they do not. It costs nothing but where there is one row. Processors of others do
not have that mode, and their kernels need it from no more than four rows on, see
``evaluators.engines.hf.batching.filled``.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

MODE, STRICT = "MKL_CBWR", "AUTO,STRICT"
INTEL = "GenuineIntel"
_INFO = Path("/proc/cpuinfo")


def ask_for_rows_alike() -> None:
    """Set the mode in this process's environment, where the processor has it and nobody set one.

    MKL reads it at its first use.
    """
    if INTEL in _maker():
        os.environ.setdefault(MODE, STRICT)


def is_asked_for() -> bool:
    """Return whether rows of products are to have the same bits however many there are."""
    return os.environ.get(MODE, "").endswith("STRICT")


def _maker() -> str:
    """Return text that has the maker's name in it: Linux and Windows tell it."""
    if not _INFO.is_file():
        return platform.processor()
    with _INFO.open(encoding="utf-8", errors="replace") as lines:
        return next((line for line in lines if line.startswith("vendor_id")), "")

"""Which rows share a forward pass, and to what length they are padded.

A row's padded length depends on the row alone, never on its neighbours. On a CPU in float32 this
is what makes scores the same bits in any block: attention and softmax round by the padded length,
while the rows of a matrix product do not depend on how many there are: MKL is asked for that
(``merge_core/rounding.py``), other libraries hold to it from a few rows upwards (``filled``). So
with one thread; several cut the work at places that depend on all of it, and the
last bits of a log-likelihood may move (by 8e-6 nats with two).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

Row = TypeVar("Row")
Answer = TypeVar("Answer")

_CPU_TOKENS = 8192  # in one pass: the products are large, and what they leave fits beside a model
_GPU_TOKENS = 131_072  # a first trial; halved until it fits


class Budget:
    """How many tokens one forward pass may have: found once by trial, then remembered.

    A CPU starts low, since it gains nothing from more; others high. ``most_rows`` is a limit on
    top.
    """

    def __init__(self, device: torch.device, most_rows: int) -> None:
        self.tokens = _CPU_TOKENS if device.type == "cpu" else _GPU_TOKENS
        self._most_rows = most_rows

    def batches(
        self,
        rows: Sequence[Row],  # of one padded length
        length: int,  # tokens of one row, what it will grow by included
        step: Callable[[Sequence[Row]], Answer],
    ) -> Iterator[Answer]:
        """Yield ``step``'s answer for one batch after another; halve the batch where it must be.

        Raises:
            torch.OutOfMemoryError: One row alone is too much.
        """
        start = 0
        while start < len(rows):
            fit = max(1, self.tokens // max(1, length))
            part = rows[start : start + min(fit, self._most_rows)]
            try:
                answer = step(part)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self.tokens = length * (len(part) // 2)
                torch.cuda.empty_cache()
                continue
            yield answer
            start += len(part)


def padded(length: int) -> int:
    """Return what a context of ``length`` tokens is padded to, its last token not counted.

    By at least one token, so that every row has a mask: without one the attention kernel is
    another, and whether a batch has one must not depend on the neighbours. Half an octave wide,
    since all that grows is the cache: few lengths make full batches. 0 for a lone token.
    """
    n = length - 1
    step = max(32, 1 << max(0, n.bit_length() - 2)) if n >= 64 else 64
    return (n // step + 1) * step if n else 0


def widened(length: int) -> int:
    """Return what a continuation of ``length`` tokens is padded to: at most a half more."""
    step = 1 << max(0, (length - 1).bit_length() - 2)
    return -(-length // step) * step


def filled(rows: int, width: int = 1) -> int:
    """Return how many rows of ``width`` tokens to run where ``rows`` are wanted.

    Enough for a matrix product to give each row the same bits: 4 with one thread (MKL, AVX2).
    """
    threads = torch.get_num_threads()
    fewest = 4 if threads == 1 else min(32, 8 * threads)
    return max(rows, -(-fewest // width))

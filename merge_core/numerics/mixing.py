"""Arithmetic of 32-bit words for hashes, on int32 tensors and on Python's own integers."""

from __future__ import annotations

from typing import Any

WORD = 2**32 - 1


def signed(word: int) -> int:
    """Return the int32 that has the same bits as the unsigned 32-bit ``word``."""
    return word - 2**32 if word >= 2**31 else word


def shifted(x: Any, by: int) -> Any:
    """Return ``x >>> by``; a shift copies the sign bit, so the copies go."""
    return (x >> by) & ((1 << (32 - by)) - 1)


def stirred(x: Any) -> Any:
    """Return ``x`` mixed by lowbias32 without its last step, which is ``x ^ shifted(x, 16)``.

    That step changes the lower half of a word only. The mixer is the one of lowest bias found
    (Wellons, Hash Function Prospector, 2018).

    Args:
        x: int32, any shape; or an int, of which 32 bits count, as they do of the result.
    """
    x = (x ^ shifted(x, 16)) * 0x7FEB352D
    return (x ^ shifted(x, 15)) * signed(0x846CA68B)

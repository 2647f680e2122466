"""The sums of ``weights_hash`` on a CPU without a compiler: few passes over blocks in the cache.

NumPy has unsigned words and works in place, so a word takes a third of the operations that it takes
in torch. The two sums over lanes, ``sum (2 l + 1) w_l`` times an odd number each, are one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from merge_core.contract import Tensor
from merge_core.kernels.threads import share, spans
from merge_core.numerics.bernoulli import WORD

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Words = NDArray[np.uint32]

BLOCK = 2**15  # columns: half a MiB of eight words each, and as much for temporaries
MANY = 64  # blocks that a thread takes at once


def folded(table: Tensor, given: Tensor, steps: tuple[int, int]) -> tuple[int, int, int]:
    """Return what ``weights_hash._folded`` gives for all columns, as whole numbers.

    ``table``, ``given``: see there; ``steps``: the odd numbers of the two sums.
    """
    import numpy as np

    words = table.numpy().view(np.uint32)
    numbers = tuple(int(x) & WORD for x in given.tolist())
    found = share(partial(_fold, words, numbers, steps), spans(words.shape[1], MANY * BLOCK))
    return sum(x for x, _, _ in found), sum(x for _, x, _ in found), max(x for _, _, x in found)


def _fold(
    words: Words, numbers: tuple[int, ...], steps: tuple[int, int], span: tuple[int, int]
) -> tuple[int, int, int]:
    import numpy as np

    size = min(BLOCK, span[1] - span[0])
    # made once: fresh memory costs more than what is done in it
    lanes, spare = np.empty((len(words), size), np.uint32), np.empty((2, size), np.uint32)
    pair, total = np.empty((2, size), np.uint32), np.empty(size, np.uint32)
    places = np.arange(size, dtype=np.uint32)
    ramps = places, places * steps[1]
    sums, over = np.zeros(2, np.uint64), 0
    for start in range(*span, size):
        block = words[:, start : min(start + size, span[1])]
        part = slice(0, block.shape[1])
        over |= _overflows(block, *numbers[2:])
        _sum_lanes(block, lanes[:, part], total[part])
        _place(start, numbers, steps, total[part], ramps, pair[:, part])
        _mix(pair[:, part], spare[:, part])
        sums += np.add.reduce(pair[:, part], axis=1, dtype=np.uint32)
    return int(sums[0]), int(sums[1]), over


def _sum_lanes(block: Words, lanes: Words, total: Words) -> None:
    """Put ``sum (2 l + 1) w_l`` of ``w = x ^ x >>> 15`` into ``total``; ``lanes`` are spare."""
    import numpy as np

    np.right_shift(block, 15, out=lanes)
    np.bitwise_xor(lanes, block, out=lanes)
    for lane in reversed(range(len(lanes) - 1)):
        np.add(lanes[lane], lanes[lane + 1], out=lanes[lane])  # of all lanes from this one on
    np.add.reduce(lanes[1:], axis=0, out=total)
    np.add(total, total, out=total)
    np.add(total, lanes[0], out=total)


def _place(
    start: int,
    numbers: tuple[int, ...],
    steps: tuple[int, int],
    total: Words,
    ramps: tuple[Words, Words],
    pair: Words,
) -> None:
    """Put what is to be mixed into ``pair``: sums over lanes, with keys and the columns' places.

    ``ramps``: places from 0 on, and those times the second step; ``total`` is overwritten.
    """
    import numpy as np

    key, (high, low) = numbers[0] ^ numbers[1], pair
    places, stepped = (ramp[: len(total)] for ramp in ramps)
    np.add(total, places, out=high)
    np.multiply(high, steps[0], out=high)
    np.add(high, (key + start * steps[0] + numbers[0]) & WORD, out=high)
    np.multiply(total, steps[1], out=low)
    np.add(low, key, out=low)
    np.add(stepped, (start * steps[1] + numbers[1]) & WORD, out=total)
    np.bitwise_xor(low, total, out=low)


def _mix(words: Words, spare: Words) -> None:
    """Mix words in place by lowbias32, see ``bernoulli.stirred``."""
    import numpy as np

    for by, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, None)):
        np.right_shift(words, by, out=spare)
        np.bitwise_xor(words, spare, out=words)
        if factor is not None:
            np.multiply(words, factor, out=words)


def _overflows(block: Words, signless: int, carry: int) -> int:
    """Return 1 if an entry has the highest exponent: the patterns of either sign end with those."""
    if carry == 0:
        return 0
    width = 16 if signless >> 16 == signless & 0xFFFF else 32
    least = ((signless + 1) - carry) & (2**width - 1)  # of them all: infinity
    entries = block.view(f"u{width // 8}")
    positive, negative = entries.view(f"i{width // 8}").max(), entries.max()
    return int(int(positive) >= least or int(negative) >= least + 2 ** (width - 1))

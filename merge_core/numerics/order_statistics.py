"""Which entries are the largest, exactly, for any number of shares at once and without a sort.

Radix selection: non-negative floats have the order of their bit patterns, so a histogram of the
high 16 bits, and one of the low 16 bits inside the buckets that matter, give every threshold bit by
bit; a third look finds where among equals to stop. Nothing is held but the histograms. Few entries
are sorted, which needs all of them in memory at once; a sampled quantile would not be exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from merge_core.contract import Cut, Tensor
from merge_core.errors import ParameterError
from merge_core.numerics.exact_sums import Parts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bits = NDArray[np.int32]

HALF = 16  # bits of a digit; the sign bit is zero
GRID = 100  # densities of a hundredth and its multiples are found all at once
FEW = 8  # patterns that are quicker looked for one by one
SORTED = 2**16  # entries up to which a sort is quicker
Found = dict[int, tuple[int, int, int]]  # place -> pattern, equals before it, equals


def ranked(parts: Parts, places: Sequence[int], *, first_equal_last: bool) -> list[Cut]:
    """Return the cuts at some places of the ascending order of non-negative floats.

    Args:
        parts: Yields float32 tensors, 0 or more everywhere, whose entries in order are the vector;
            the same at each of up to four calls.
        places: From 0 to the number of entries; there are exactly that many entries before the cut.
        first_equal_last: Of equals, those of lower place rank after the others. Then ``place`` is
            where those that rank *before* the cut begin.

    Returns:
        One cut for each place; for the number of all entries, a threshold of infinity.
    """
    import numpy as np

    few = _few(parts)
    found = _selected(parts, places) if few is None else _sorted(few, places)
    stops = _stops(parts, found, first_equal_last)
    cuts = {
        place: Cut(float(np.int32(pattern).view(np.float32)), stops[place])
        for place, (pattern, _, _) in found.items()
    }
    return [cuts.get(place, Cut(math.inf, 0)) for place in places]


def _few(parts: Parts) -> Bits | None:
    """Return all patterns, where they are few."""
    import numpy as np

    found: list[Bits] = []
    for bits in _patterns(parts):
        found.append(bits)
        if sum(map(len, found)) > SORTED:
            return None
    return np.concatenate([*found, np.zeros(0, dtype=np.int32)])


def _sorted(bits: Bits, places: Sequence[int]) -> Found:
    import numpy as np

    ordered = np.sort(bits)
    there = sorted(place for place in {*places} if place < len(bits))
    patterns = ordered[there]
    first, last = (ordered.searchsorted(patterns, side=side) for side in ("left", "right"))
    return {
        place: (int(pattern), place - int(start), int(end - start))
        for place, pattern, start, end in zip(there, patterns, first, last, strict=True)
    }


def _selected(parts: Parts, places: Sequence[int]) -> Found:
    high = _counts((bits >> HALF for bits in _patterns(parts)), 2**HALF)
    ends = high.cumsum()
    upper = {place: _bucket(ends, high, place) for place in {*places} if place < ends[-1]}
    buckets = sorted({bucket for bucket, _ in upper.values()})
    low = _low_counts(parts, buckets)
    found: Found = {}
    for place, (bucket, left) in sorted(upper.items()):
        counts = low[buckets.index(bucket)]
        lower, before = _bucket(counts.cumsum(), counts, left)
        found[place] = (bucket << HALF | lower, before, int(counts[lower]))
    return found


def first_kept(count: int, density: float) -> int:
    """Return the place in ascending order from which ``max(1, floor(density * count))`` stay.

    No entries have place 0. ``density``: in (0, 1].

    Raises:
        ParameterError: ``density`` is outside (0, 1].

    Source: TIES-Merging, arXiv:2306.01708, step 1.
    """
    if not 0 < density <= 1:  # also refuses nan
        raise ParameterError(f"density must be in (0, 1], got {density}")
    return count - max(1, math.floor(density * count)) if count else 0


def grid(count: int) -> list[int]:
    """Return the places of :func:`first_kept` for all hundredths below 1, ascending."""
    return sorted({first_kept(count, j / GRID) for j in range(1, GRID)})


def shared_out(cut: Cut, sizes: Sequence[int]) -> list[Cut]:
    """Return the cuts of the vectors that a vector is made of one after the other.

    All have its threshold: larger entries stay, and equal ones ahead of the cut's place.
    """
    found, start = [], 0
    for size in sizes:
        found.append(Cut(cut.threshold, min(max(cut.place - start, 0), size)))
        start += size
    return found


def packed(places: Sequence[int], cuts: Sequence[Cut]) -> Tensor:
    """Return the cuts at ascending places as a table, ``(3, n)`` float64, for :func:`looked_up`.

    A tenth of what as many objects take: a model of many experts has tens of thousands of tables.
    """
    import torch

    rows = [places, [cut.threshold for cut in cuts], [cut.place for cut in cuts]]
    return torch.tensor(rows, dtype=torch.float64)


def looked_up(table: Tensor, place: int) -> Cut | None:
    """Return the cut at a place, or None if the table has none there."""
    import torch

    at = int(torch.searchsorted(table[0], place))
    if at == table.shape[1] or int(table[0, at]) != place:
        return None
    return Cut(float(table[1, at]), int(table[2, at]))


def above(threshold: float) -> float:
    """Return the float32 next above a float32."""
    import numpy as np

    return float(np.nextafter(np.float32(threshold), np.float32(math.inf)))


def _patterns(parts: Parts) -> Iterator[Bits]:
    import torch

    for part in parts():
        yield (part.reshape(-1).view(torch.int32) & 0x7FFFFFFF).cpu().numpy()  # -0 is 0


def _counts(digits: Iterable[Bits], size: int) -> NDArray[np.int64]:
    import numpy as np

    counts = np.zeros(size, dtype=np.int64)
    waiting: list[Bits] = []
    for part in digits:
        waiting.append(part)
        if sum(map(len, waiting)) >= size:  # a histogram of few is mostly zeros to be added
            counts += np.bincount(np.concatenate(waiting), minlength=size)
            waiting.clear()
    return counts + np.bincount(np.concatenate([*waiting, counts[:0]]), minlength=size)


def _bucket(ends: NDArray[np.int64], counts: NDArray[np.int64], place: int) -> tuple[int, int]:
    """Return the bucket in which a place is, and its place there."""
    at = int(ends.searchsorted(place, side="right"))
    return at, place - int(ends[at] - counts[at])


def _low_counts(parts: Parts, buckets: Sequence[int]) -> NDArray[np.int64]:
    """Return ``(len(buckets), 2**16)``: how often each low half occurs in each bucket."""
    import numpy as np

    slots = np.full(2**HALF, -1, dtype=np.int32)
    slots[buckets] = np.arange(len(buckets), dtype=np.int32)

    def codes() -> Iterator[Bits]:
        for bits in _patterns(parts):
            slot = slots[bits >> HALF]
            chosen = slot >= 0
            yield (slot[chosen] << HALF) | (bits[chosen] & (2**HALF - 1))

    return _counts(codes(), len(buckets) * 2**HALF).reshape(len(buckets), 2**HALF)


def _stops(parts: Parts, found: Found, first_equal_last: bool) -> dict[int, int]:
    """Return, for each place, the flat place that divides the entries equal to its threshold."""
    import numpy as np

    # how many equals, from the front, stand on the near side of the dividing place
    left = {
        place: (equals - before if first_equal_last else before)
        for place, (_, before, equals) in found.items()
    }
    stops = dict.fromkeys(found, 0)
    waiting = [place for place, count in left.items() if count > 0]
    start = 0
    for bits in _patterns(parts) if waiting else ():
        counts = _occurrences(bits, [found[place][0] for place in waiting])
        for place, count in zip(list(waiting), counts, strict=True):
            if left[place] <= count:
                here = np.flatnonzero(bits == found[place][0])
                stops[place] = start + int(here[left[place] - 1]) + 1
                waiting.remove(place)
            else:
                left[place] -= count
        start += len(bits)
        if not waiting:
            break
    return stops


def _occurrences(bits: Bits, patterns: Sequence[int]) -> list[int]:
    """Return how often each of some patterns occurs."""
    import numpy as np

    if len(patterns) < FEW:
        return [int(np.count_nonzero(bits == pattern)) for pattern in patterns]
    slots = np.zeros(2**HALF, dtype=bool)
    slots[[pattern >> HALF for pattern in patterns]] = True
    near = np.sort(bits[slots[bits >> HALF]])
    first, last = (np.searchsorted(near, patterns, side=side) for side in ("left", "right"))
    return [int(x) for x in last - first]

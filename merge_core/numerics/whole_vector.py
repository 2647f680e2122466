"""Where to cut a model's whole task vector, exactly, without ever holding it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from merge_core.contract import Cut
from merge_core.errors import ParameterError
from merge_core.numerics.order_statistics import ranked

if TYPE_CHECKING:
    from torch import Tensor


def cuts(tensors: Callable[[], Iterable[Tensor]], density: float) -> list[Cut]:
    """Return the cut of every tensor that keeps the largest share of them all together.

    Of ``n`` entries exactly ``max(1, floor(density * n))`` of largest magnitude survive; of equals
    at the threshold those of the first tensors, and there those of lowest flat index.

    Args:
        tensors: Yields the ``(*shape)`` float32 task vectors of one model, in the same order at
            each of its calls. One of them is held at a time. None may have NaN entries: they
            would rank above infinity.
        density: In (0, 1].

    Returns:
        One cut per tensor, all of the same threshold: larger entries stay, and equal ones ahead of
        the cut's place.

    Raises:
        ParameterError: ``density`` is outside (0, 1].

    Source: TIES-Merging, arXiv:2306.01708, step 1, for the whole task vector.
    """
    if not 0 < density <= 1:  # also refuses nan
        raise ParameterError(f"density must be in (0, 1], got {density}")
    sizes = [x.numel() for x in tensors()]
    total = sum(sizes)
    if total == 0:
        return [Cut(math.inf, 0) for _ in sizes]
    wanted = max(1, math.floor(density * total))
    (cut,) = ranked(lambda: (x.abs() for x in tensors()), [total - wanted], first_equal_last=True)
    found, start = [], 0
    for size in sizes:
        found.append(Cut(cut.threshold, min(max(cut.place - start, 0), size)))
        start += size
    return found

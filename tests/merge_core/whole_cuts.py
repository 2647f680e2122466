"""The cuts of several tensors that are trimmed as one vector, straight from the numerics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from merge_core.contract import Cut
from merge_core.numerics.order_statistics import first_kept, ranked, shared_out

if TYPE_CHECKING:
    from torch import Tensor


def cuts(tensors: Callable[[], Iterable[Tensor]], density: float) -> list[Cut]:
    """Return the cut of every tensor that keeps the largest share of them all together."""
    sizes = [x.numel() for x in tensors()]
    place = first_kept(sum(sizes), density)
    (cut,) = ranked(lambda: (x.abs() for x in tensors()), [place], first_equal_last=True)
    return shared_out(cut, sizes)

"""What a study needs of its parents again and again, computed once: thresholds, sums, ranks.

Nothing here depends on a knob that is not in the name of the quantity, so a value that is kept is
the value that would be computed. When there is no more room a new value is not kept: each candidate
asks for the same values in the same order, and to let the oldest go would be to lose each just
before it is asked for. Only what no candidate has asked for in a while makes room.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from merge_core.merge.statistics_cache_disk import Saved
from merge_core.parents.residency import host_room
from merge_core.plan.steps import Operand

OF_A_NAME = 500  # bytes, roughly, of a value's name, beside the value
OF_A_NUMBER = 200  # bytes, roughly, of what is no tensor
MUCH = 0.1  # seconds of computing, after which memory is given back
LONG = 8  # candidates that have not asked for a value, after which it may go


@dataclass
class _Kept:
    value: Any
    size: int  # bytes
    version: Hashable
    asked: int  # by which candidate last


class Known:
    """Values by name, as many as there is room for.

    Args:
        room: Bytes; None: a part of the host's free memory, see ``residency.host_room``.
        saved: Also keeps what depends on the parents alone, from one process to the next.
    """

    def __init__(self, room: int | None = None, saved: Saved | None = None) -> None:
        self._room, self._saved = host_room() if room is None else room, saved
        self._values: OrderedDict[Hashable, _Kept] = OrderedDict()  # asked for longest ago first
        self._cheap: dict[Hashable, None] = {}  # the names of those that are
        self._candidate = 0
        self.used = 0  # bytes
        self.seconds = 0.0  # spent on computing
        self._settled = 0.0  # seconds, when memory was given back
        self._depth = 0
        self._parents: dict[str, object] = {}

    def of(self, parents: Mapping[str, object]) -> Known:
        """Begin a candidate of these parents; what is known of others by their names is forgotten.

        They are kept alive, since a new object may get an old one's id.
        """
        self._candidate += 1
        before = self._parents
        changed = {name for name, x in parents.items() if before.get(name, x) is not x}
        for name in [name for name in self._values if changed and _is_of(name, changed)]:
            self._drop(name)
        self._parents.update(parents)
        return self

    def of_tensors(
        self,
        what: Hashable,
        of: Sequence[Operand | None],
        compute: Callable[[], Any],
        version: Hashable = None,
    ) -> Any:
        """Return a quantity of some tensors, named ``what``; see :meth:`get`.

        A plain name without versions is of what depends on the tensors alone: it may be on disk.
        """
        saved = self._saved

        def found() -> Any:
            if saved is None or version is not None or not isinstance(what, str):
                return compute()
            return saved.get(what, of, self._parents, compute)

        return self.get((what, of), found, version)

    def get(
        self,
        name: Hashable,
        compute: Callable[[], Any],
        version: Hashable = None,
        *,
        cheap: bool = False,
    ) -> Any:
        """Return the value of that name and version, computed if it is not there.

        Only the last version of a value is kept. One that is ``cheap`` to compute for its bytes
        makes room for others.
        """
        kept = self._values.get(name)
        if kept is not None and kept.version == version:
            kept.asked = self._candidate
            self._values.move_to_end(name)
            return kept.value
        if kept is not None:
            self._drop(name)
        start = time.perf_counter()
        self._depth += 1  # one quantity may need another: count the time once
        try:
            value = compute()
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.seconds += time.perf_counter() - start
        size = _bytes(value) + OF_A_NAME
        self._keep(name, _Kept(value, size, version, self._candidate), cheap)
        return value

    def _keep(self, name: Hashable, new: _Kept, cheap: bool) -> None:
        """Keep a value if there is room, or can be made of what is cheap or long past."""
        if new.size > self._room:
            return
        while self.used + new.size > self._room:
            oldest = next(iter(self._values))
            if self._candidate - self._values[oldest].asked > LONG:
                self._drop(oldest)
            elif self._cheap and not cheap:
                self._drop(next(reversed(self._cheap)))
            else:
                return
        self._values[name] = new
        self.used += new.size
        if cheap:
            self._cheap[name] = None

    def _drop(self, name: Hashable) -> None:
        self.used -= self._values.pop(name).size
        self._cheap.pop(name, None)

    def settle(self) -> None:
        """Give back the memory that computing has left; glibc keeps hundreds of MiB of it."""
        if self.seconds - self._settled >= MUCH:
            self._settled = self.seconds
            give_back()

    def forget(self) -> None:
        """Forget everything."""
        self._values.clear()
        self._cheap.clear()
        self.used = 0


def _is_of(name: Hashable, parents: Collection[str]) -> bool:
    """Return whether a value's name is of a tensor of one of the parents, or does not tell."""
    of = name[1] if isinstance(name, tuple) and len(name) == 2 else None
    operands = [x for x in (of if isinstance(of, tuple) else (of,)) if x is not None]
    told = bool(operands) and all(isinstance(x, Operand) for x in operands)
    return not told or any(x.parent in parents for x in operands)


def give_back() -> None:
    """Return freed memory to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _bytes(value: Any) -> int:
    if hasattr(value, "element_size"):
        return int(value.numel() * value.element_size())
    if isinstance(value, dict):
        return sum(_bytes(member) for member in value.values()) + OF_A_NUMBER
    if isinstance(value, list | tuple):
        return sum(_bytes(member) for member in value) + OF_A_NUMBER
    return OF_A_NUMBER

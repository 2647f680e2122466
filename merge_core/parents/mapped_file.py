"""A file that is mapped into memory, and whose pages can be taken out of the process again."""

from __future__ import annotations

import mmap
from pathlib import Path

from merge_core.contract import Tensor


class MappedFile:
    """A file's bytes as views of its pages; what is written to a view does not reach the file.

    Pages that were read count as memory of the process (resident, ``ru_maxrss``) until they are let
    go; the system's cache keeps them as long as it has room.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is empty.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            self._pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)

    def view(self, start: int, stop: int) -> Tensor:
        """Return bytes ``start`` to ``stop``, ``(stop - start,)`` uint8, which begin anywhere."""
        import torch

        if start == stop:
            return torch.empty(0, dtype=torch.uint8)
        return torch.frombuffer(self._pages, dtype=torch.uint8, offset=start, count=stop - start)

    def let_go(self) -> None:
        """Take all pages out of the process; views stay valid: what is read comes back.

        All, not those that were asked for: a system maps more than what is read, by its own rules.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED)

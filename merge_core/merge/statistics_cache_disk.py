"""What was computed once of a study's parents, in a folder: for the next study on the same ones.

A value is named by the digests of the parents and by all that decides its bits: merge_core's own
source, torch, the kind of device. So a folder may be shared by any studies and outlives updates.
A file that is damaged is made anew, and a folder that cannot be used is told once: nothing fails.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from merge_core.contract import Cut
from merge_core.errors import warn
from merge_core.merge.cache_folder import CacheFolder
from merge_core.plan.steps import Operand

# what torch says of bytes that are no value
UNREADABLE = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, LookupError),
    *(AttributeError, ImportError, ArithmeticError),
)


class Saved:
    """Values in files.

    Args:
        folder: Is made when a value is written; see ``CacheFolder`` for its bound.
        device: torch's name of where values are used.

    Raises:
        ParameterError: The bound is no number.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self._files, self._device = CacheFolder(folder), device
        self._told, self._writes = False, True

    def get(
        self,
        what: str,
        of: Sequence[Operand | None],
        parents: Mapping[str, Any],
        compute: Callable[[], Any],
    ) -> Any:
        """Return the quantity ``what`` of some tensors of ``parents``, from its file if it can be.

        Else it is computed, and written if it can be.
        """
        name = self.name(what, of, parents)
        data = self._tried(lambda: self._files.read(name))
        if data is not None:
            try:
                return self._value(data)
            except UNREADABLE:  # whole, but no value of this torch or of ours
                self._tried(lambda: self._files.remove(name))
        value = compute()
        if self._writes:
            self._writes = self._tried(lambda: self._written(name, value)) is not None
        return value

    def name(self, what: str, of: Sequence[Operand | None], parents: Mapping[str, Any]) -> str:
        """Return the name of the quantity ``what`` of some tensors of ``parents``."""
        import torch

        tensors = [None if x is None else (parents[x.parent].digest, x.tensor) for x in of]
        kind = self._device.partition(":")[0]
        key = repr((_source(), torch.__version__, kind, what, tensors))
        return sha256(key.encode()).hexdigest()

    def _tried(self, action: Callable[[], Any]) -> Any:
        """Return what an action on the folder gives; None, and told once, if it cannot be done."""
        try:
            return action()
        except OSError as error:
            if not self._told:
                self._told = True
                why = error.strerror or str(error)
                warn(
                    f"{self._files.folder}: what is computed once of the parents cannot be kept "
                    f"there: {why}; the study goes on without. Mend it, or set engine.cache to "
                    f"another folder"
                )
            return None

    def _value(self, data: bytes) -> Any:
        import torch

        with torch.serialization.safe_globals([Cut]):
            return torch.load(io.BytesIO(data), map_location=self._device, weights_only=True)

    def _written(self, name: str, value: Any) -> bool:
        import torch

        buffer = io.BytesIO()
        torch.save(value, buffer)
        self._files.write(name, buffer.getvalue())
        return True


@functools.cache
def _source() -> str:
    """Return the digest of all code that may decide a value."""
    state = sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        state.update(file.read_bytes())
    return state.hexdigest()

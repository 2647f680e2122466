"""What was computed once of a study's parents, in a folder: for the next study on the same ones.

A value is named by the digests of the parents and by all that decides its bits: merge_core's own
source, torch, the kind of device. So a folder may be shared by any studies and outlives updates.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from merge_core.atomic_write import make_whole
from merge_core.contract import Cut
from merge_core.errors import CheckpointError
from merge_core.plan.steps import Operand


class Saved:
    """Values in files.

    Args:
        folder: Is made when a value is written.
        device: torch's name of where values are used.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self._folder, self._device = folder, device

    def file(self, what: str, of: Sequence[Operand | None], parents: Mapping[str, Any]) -> Path:
        """Return the file of the quantity ``what`` of some tensors of ``parents``."""
        import torch

        tensors = [None if x is None else (parents[x.parent].digest, x.tensor) for x in of]
        kind = self._device.partition(":")[0]
        key = repr((_source(), torch.__version__, kind, what, tensors))
        return self._folder / f"{sha256(key.encode()).hexdigest()}.pt"

    def read(self, file: Path) -> Any:
        """Return the value in a file.

        Raises:
            CheckpointError: The file is damaged.
        """
        import pickle

        import torch

        try:
            with torch.serialization.safe_globals([Cut]):
                return torch.load(file, map_location=self._device, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise CheckpointError(f"{file}: damaged, or not ours; delete the file") from error

    def write(self, file: Path, value: Any) -> None:
        """Put a value into a file, whole or not at all."""
        import torch

        make_whole(file, lambda part: torch.save(value, part))


@functools.cache
def _source() -> str:
    """Return the digest of all code that may decide a value."""
    state = sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        state.update(file.read_bytes())
    return state.hexdigest()

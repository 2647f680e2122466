"""Trained routers to a safetensors file, which a recipe names as ``moe.gates``."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from merge_core.atomic_write import make_whole


def write_routers(routers: Mapping[str, Any], folder: Path) -> Path:
    """Write routers to a file that is named by what it holds, whole or not at all.

    Args:
        routers: Stored name -> tensor ``(experts, hidden)``.
        folder: Is made if it is not there.

    Raises:
        OutputError: It cannot be written.
    """
    from safetensors.torch import save

    data = save({name: x.detach().cpu().contiguous() for name, x in routers.items()})
    file = folder / f"{blake2b(data, digest_size=8).hexdigest()}.safetensors"
    if not file.exists():
        make_whole(file, lambda part: part.write_bytes(data))
    return file

"""Model references -> opened parents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from merge_core.parents.checkpoint import Checkpoint
from merge_core.parents.locate import Located, locate
from merge_core.parents.lora import Adapted
from merge_core.parents.protocol import Parent
from merge_core.parents.router_file import RouterFile
from merge_core.parents.weight_files import Opens, open_file


def open_parents(
    references: Sequence[str], roots: Sequence[Path], opens: Opens = open_file
) -> dict[str, Parent]:
    """Open every parent of a recipe.

    Relative references are tried from ``roots``; weight files are opened by ``opens``.

    Raises:
        CheckpointError: See ``Checkpoint``, ``lora.Adapted`` and ``locate.locate``.
    """
    return {name: _open(locate(name, roots), opens) for name in references}


def _open(located: Located, opens: Opens) -> Parent:
    if located.is_file:
        return RouterFile(located, opens)
    if located.lora is None:
        return Checkpoint(located, opens)
    base = Checkpoint(Located(located.model.path, located.model), opens)
    return Adapted(located, base, opens)

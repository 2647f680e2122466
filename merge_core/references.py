"""Where a model reference leads: an existing folder first, else a hub id."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from merge_core.errors import CheckpointError

WANTED = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "README.md")


def local_folder(reference: str, roots: Sequence[Path]) -> Path | None:
    """Return the folder that a reference names, relative to one of ``roots``, or None."""
    for root in roots:
        folder = root / Path(reference).expanduser()
        if folder.is_dir():
            return folder.resolve()  # ".." after a link leads where the disk says, not the text
    return None


def is_path(reference: str) -> bool:
    """Return whether a reference can only be a path: hub ids are ``name`` or ``owner/name``."""
    return reference.startswith((".", "/", "~")) or reference.count("/") > 1


def folder_of(reference: str, roots: Sequence[Path]) -> Path:
    """Return the folder of a model's files; a hub id is looked up in the cache, then downloaded.

    Args:
        reference: As in the recipe.
        roots: Folders that relative paths are tried from, in order: that of the file which holds
            the reference, then the working directory.

    Raises:
        CheckpointError: There is no such folder, and the hub does not give it either.
    """
    folder = local_folder(reference, roots)
    if folder is not None:
        return folder
    tried = " or ".join(str(root) for root in roots)
    if is_path(reference):
        raise CheckpointError(f"model {reference!r}: no such folder in {tried}")
    if "@" in reference or "+" in reference:
        raise CheckpointError(
            f"model {reference!r}: revisions (@) and adapters (+) are not read yet, "
            f"and no folder has that name in {tried}"
        )
    return _from_hub(reference, tried)


def _from_hub(reference: str, tried: str) -> Path:
    import huggingface_hub as hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hub.snapshot_download(reference, allow_patterns=list(WANTED)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"model {reference!r}: no folder of that name in {tried}, and not to be had from the "
            f"hub: {str(error).splitlines()[0]}"
        ) from error


def relative_to(folder: Path, where: Path) -> str:
    """Return a reference to ``folder`` that holds in a file inside the folder ``where``."""
    path = Path(os.path.relpath(folder.resolve(), where.resolve())).as_posix()
    return path if path.startswith(".") else f"./{path}"

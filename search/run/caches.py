"""The folders in which mergetune keeps what would only be computed again: shown and cleared."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from merge_core.architecture import class_facts_cache
from merge_core.errors import MergeError, OutputError
from merge_core.merge import cache_folder
from merge_core.parents import gguf_file
from search.spec import study_file

HOMELESS = "no cache: this user has no home; set MERGETUNE_CACHE to a folder"


@dataclass(frozen=True)
class Cache:
    """One folder; its bytes grow up to the bound, None: it stays small without one."""

    holds: str
    place: str
    entries: int
    bytes: int
    bound: int | None = None


def cache(where: Path | None, *, clear: bool = False) -> Cache:
    """Return what is in a cache, or was if it is to be cleared.

    Args:
        where: A study's file or folder, for the one that it names under ``engine.cache``, or such a
            folder itself; None: the user's own, of facts of model classes.
        clear: Remove what is in it, and no other file.

    Raises:
        MergeError: The study cannot be read, or has none; or the user.
        OutputError: The folder cannot be read, or cleared.
    """
    look = cache_folder.clear if clear else cache_folder.held
    if where is None:
        holds, names, bound = "facts of model classes", class_facts_cache.FILES, None
        folder = class_facts_cache.folder()
        if folder is None:
            raise MergeError(HOMELESS)
    else:
        holds, names, bound = "statistics of parents", cache_folder.FILES, cache_folder.bound()
        folder = _of_study(where)
    try:
        held = look(folder, names)
    except OSError as error:
        done = "cleared" if clear else "read"
        raise OutputError(f"{folder}: cannot be {done}: {error.strerror or error}") from error
    return Cache(holds, str(folder), held.entries, held.bytes, bound)


def unpacked(*, clear: bool = False) -> Cache:
    """Return what the user's cache has of models unpacked from GGUF files, or had.

    Args:
        clear: Remove it; the next reader of a file unpacks it again.

    Raises:
        MergeError: The user has no home.
        OutputError: The folder cannot be read, or cleared.
    """
    folder = gguf_file.cache()
    if folder is None:
        raise MergeError(HOMELESS)
    try:
        kept = [x for x in folder.glob("*") if gguf_file.FOLDERS.fullmatch(x.name) and x.is_dir()]
        size = sum(file.stat().st_size for x in kept for file in x.rglob("*"))
        for one in kept if clear else ():
            shutil.rmtree(one)
            one.with_suffix(".lock").unlink(missing_ok=True)
    except OSError as error:
        done = "cleared" if clear else "read"
        raise OutputError(f"{folder}: cannot be {done}: {error.strerror or error}") from error
    return Cache("models unpacked from GGUF files", str(folder), len(kept), size)


def _of_study(where: Path) -> Path:
    """Return the folder that a study keeps statistics in, or the one given if it is no study's."""
    if where.is_dir() and not (where / study_file.FILE).exists():
        return where
    spec = study_file.read(where)
    if spec.engine.cache is None:
        raise MergeError(f"{where}: the study keeps none; engine.cache names a folder for it")
    return spec.folder / spec.engine.cache

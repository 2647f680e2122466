"""``STUDY#name``: which study of a storage is meant, said in the same word as the storage."""

from __future__ import annotations

from pathlib import Path

from merge_core.errors import ParameterError
from search.spec.storage_url import storage_file

MARK = "#"


def split(study: str, name: str | None = None) -> tuple[str, str | None]:
    """Return what names a study file, folder, bundle or storage, and the study's name.

    A file that is there keeps its name whatever stands in it, and so does what is before an ``@``
    in the URL of a server: a password may have a ``#``.

    Args:
        study: Maybe with ``#name`` at its end.
        name: Of ``--name``, if it was given.

    Raises:
        ParameterError: Both say a name, and not the same; or nothing stands after the ``#``.
    """
    places = [i for i, letter in enumerate(study) if letter == MARK]
    if not places or _exists(study):
        return study, name
    if "://" in study and storage_file(study) is None:
        places = [i for i in places if "@" not in study[i:]][:1]
    place = next((i for i in places if _exists(study[:i])), next(reversed(places), None))
    if place is None:
        return study, name
    here, said = study[:place], study[place + 1 :]
    if not said.strip():
        raise ParameterError(f"{here}{MARK}: expected the name of a study after {MARK}, got none")
    if name not in (None, said):
        raise ParameterError(f"the study is called {said!r} after {MARK} and {name!r} by --name")
    return here, said


def _exists(study: str) -> bool:
    """Return whether a text names a file or a folder that is there."""
    file = storage_file(study) if "://" in study else None
    try:
        return (Path(study) if file is None else file).exists()
    except (OSError, ValueError):  # too long, a NUL
        return False

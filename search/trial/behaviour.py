"""What decides a study's scores beside recipes, weights and tasks; and that it stays as it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from merge_core.architecture.remote_code import CODE_FROM
from merge_core.errors import CheckpointError
from merge_core.output.live_model import GENERATION, INERT
from merge_core.parents.companions import CODE, code_files, companions, is_of_tokenizer
from merge_core.parents.protocol import Parent

READ = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model", ".tiktoken", ".gguf")


def digests(parents: Mapping[str, Parent], main: str) -> dict[str, str]:
    """Return reference and name of each file that decides how candidates behave -> its SHA-256.

    That is every parent's config, and the main parent's tokenizer with its chat templates and
    generation settings, which all candidates have.

    Args:
        parents: By their references.
        main: Reference of the one that all candidates have tokenizer and settings of.
    """
    found = {f"{name}/config.json": _config(parent) for name, parent in parents.items()}
    folder = parents[main].folder
    for file in (*companions(folder), *code_files(folder)):
        if file.name == GENERATION or file.match(CODE) or is_of_tokenizer(file):
            name = f"{main}/{file.relative_to(folder).as_posix()}"
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _config(parent: Parent) -> str:
    kept = {k: x for k, x in parent.config.items() if k not in (*INERT, CODE_FROM)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


class _State(NamedTuple):
    inode: int
    size: int
    mtime: int  # ns
    about: tuple[int, ...]  # rights, owner, links: what else moves ctime
    ctime: int  # ns; no program can put it back

    def holds_what(self, was: _State) -> bool:
        """Return whether a file holds what it held, as far as can be told without reading it."""
        if self[:3] != was[:3]:
            return False
        return self.ctime == was.ctime or self.about != was.about


class Watch:
    """Sees whether a file of a model is another one than when it was opened.

    Args:
        parents: The models, just opened.
    """

    def __init__(self, parents: Iterable[Parent]) -> None:
        places = [parent.located for parent in parents]
        parts = [part for x in places if x is not None for part in (x.model, x.lora)]
        files = {file for part in parts if part is not None for file in part.files}
        read = [file for file in files if file.suffix in READ]
        self._seen = {file: _state(file) for file in read}

    def check(self) -> None:
        """Refuse to go on with files that were replaced, changed or removed.

        Raises:
            CheckpointError: One was.
        """
        now = {file: _state(file) for file in self._seen}
        changed = [file for file, was in self._seen.items() if not _is_same(was, now[file])]
        if changed:
            raise CheckpointError(
                f"{min(changed)}: was changed while the study ran, so it is not the model that was "
                "opened; put back what it was, if it is another one now"
            )
        self._seen = now


def _is_same(was: _State | None, now: _State | None) -> bool:
    return was is now if was is None or now is None else now.holds_what(was)


def _state(file: Path) -> _State | None:
    try:
        found = file.stat()
    except OSError:  # it is gone, or cannot be reached
        return None
    about = (found.st_mode, found.st_uid, found.st_gid, found.st_nlink)
    return _State(found.st_ino, found.st_size, found.st_mtime_ns, about, found.st_ctime_ns)

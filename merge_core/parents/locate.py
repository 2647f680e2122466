"""Where a model reference leads: an existing folder first, else a hub id; also to an adapter."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from merge_core import consent
from merge_core.errors import CheckpointError
from merge_core.parents import gguf_file
from merge_core.parents.companions import CHATS, CODE, KEPT, LEFT, OWN
from merge_core.recipe.model_reference import Reference, parse

FILE = ".safetensors"  # references to a file of tensors end so
WANTED = ("*.safetensors", *OWN, "*.index.json", "README.md", *KEPT)
PICKLED = ("pytorch_model*.bin", "adapter_model.bin")  # only where there are no safetensors
# Weights of other formats and in folders, and what no merge has a use for.
UNWANTED = ("*/*", "consolidated*", *(name for name in LEFT if name not in WANTED))


@dataclass(frozen=True)
class Place:
    """Where a model's or an adapter's files are; ``commit`` is the hub's, None for a folder."""

    path: str
    folder: Path
    commit: str | None = None
    gguf: Path | None = None  # the file that ``folder`` was made of

    @property
    def shown(self) -> Path:
        """What the user knows it by."""
        return self.gguf or self.folder

    @property
    def files(self) -> list[Path]:
        """All files that decide what is read, whether it is read of each or not."""
        there = [x for x in self.folder.iterdir() if x.is_file()]
        return there + ([] if self.gguf is None else gguf_file.sources(self.gguf))

    def seen_from(self, where: Path) -> tuple[str, str | None]:
        """Return path and revision that lead here from a file in the folder ``where``."""
        if self.commit is not None:
            return self.path, self.commit
        return relative_to(self.shown, where), None


@dataclass(frozen=True)
class Located:
    """A reference and the folders that it leads to."""

    reference: str
    model: Place
    lora: Place | None = None

    @property
    def is_file(self) -> bool:
        """Whether the model's place is a file of tensors, not a folder."""
        return self.reference.endswith(FILE) and self.model.folder.is_file()

    def seen_from(self, where: Path) -> str:
        """Return the reference that holds in a file inside the folder ``where``: hub ids pinned."""
        if self.is_file:
            return relative_to(self.model.folder, where)
        lora = (None, None) if self.lora is None else self.lora.seen_from(where)
        return str(Reference(*self.model.seen_from(where), *lora))

    def pinned(self) -> str | None:
        """Return the reference with the hub's commits in it, or None where no part is a hub id."""
        if self.is_file:
            return None
        lora = (None, None) if self.lora is None else (self.lora.path, self.lora.commit)
        found = Reference(self.model.path, self.model.commit, *lora)
        return str(found) if found.revision or found.lora_revision else None


def local_folder(path: str, roots: Sequence[Path]) -> Path | None:
    """Return the folder that a path names, relative to one of ``roots``, or None."""
    for root in roots:
        try:
            folder = root / Path(path).expanduser()
            if folder.is_dir():
                return folder.resolve()  # ".." after a link leads where the disk says, not the text
        except (OSError, ValueError, RuntimeError):  # too long, a NUL, ~ of nobody: no folder
            return None
    return None


def local_model(path: str, roots: Sequence[Path]) -> Path | None:
    """Return the model folder or GGUF file that a path names, relative to one of ``roots``.

    A folder that has one GGUF file and no weights of other formats is that file.

    Raises:
        CheckpointError: It has several.
    """
    for root in roots:
        folder = local_folder(path, (root,))
        if folder is not None:
            return gguf_file.instead_of(folder) or folder
        file = _gguf(root, path)
        if file is not None:
            return file
    return None


def _gguf(root: Path, path: str) -> Path | None:
    if not path.endswith(gguf_file.SUFFIX):
        return None
    try:
        file = root / Path(path).expanduser()
        return file.parent.resolve() / file.name if file.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _opened(path: str, found: Path) -> Place:
    """Return the place of a folder or a GGUF file of this disk."""
    if found.suffix == gguf_file.SUFFIX and found.is_file():
        return Place(path, gguf_file.as_folder(found), gguf=found)
    return Place(path, found)


def local_file(path: str, roots: Sequence[Path]) -> Path | None:
    """Return the file of tensors that a path names, relative to one of ``roots``, or None."""
    if not path.endswith(FILE):
        return None
    files = (root / Path(path).expanduser() for root in roots)
    return next((file.resolve() for file in files if file.is_file()), None)


def locate_here(reference: str, roots: Sequence[Path]) -> Path | None:
    """Return the folder of a reference's model if it is on this disk outside the hub's cache.

    Raises:
        CheckpointError: It is a GGUF file and cannot be read, see ``gguf_file.as_folder``.
    """
    found = local_model(reference, roots) or local_model(parse(reference).path, roots)
    return None if found is None else _opened(reference, found).folder


def locate_cached(reference: str, roots: Sequence[Path]) -> Path | None:
    """Return the folder of a reference's model as ``locate_here``, or in the hub's cache.

    There it may lack some files; nothing is fetched.

    Raises:
        CheckpointError: See ``locate_here``.
    """
    here = locate_here(reference, roots)
    if here is not None:
        return here
    import huggingface_hub as hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    parsed = parse(reference)
    try:
        found = hub.snapshot_download(
            parsed.path,
            revision=parsed.revision,
            allow_patterns=[*OWN, *KEPT],
            ignore_patterns=[*UNWANTED],
            local_files_only=True,
        )
    except (HFValidationError, LocalEntryNotFoundError):
        return None
    return Path(found)


def not_local(reference: str, roots: Sequence[Path]) -> list[str]:
    """Return the parts of a reference, model and adapter, that are no folders but may be hub ids.

    Raises:
        ParameterError: The reference cannot be read.
        CheckpointError: A part can only be a folder, and is not there.
    """
    if local_model(reference, roots) is not None or local_file(reference, roots) is not None:
        return []
    _refuse_file(reference, roots)
    parsed = parse(reference)
    parts = [path for path in (parsed.path, parsed.lora) if path is not None]
    absent = [path for path in parts if local_model(path, roots) is None]
    for path in absent:
        _refuse_path(path, roots)
    return absent


def is_local(reference: str, roots: Sequence[Path]) -> bool:
    """Return whether a part of a reference, model or adapter, is a path of this disk.

    Raises:
        ParameterError, CheckpointError: See ``not_local``.
    """
    absent = not_local(reference, roots)
    return not absent or (len(absent) == 1 and parse(reference).lora is not None)


def locate(reference: str, roots: Sequence[Path], *, weights: bool = True) -> Located:
    """Return the folders of a reference's files; a hub id is looked up in the cache, then fetched.

    Args:
        reference: As in the recipe. Text that names a folder as a whole is that folder.
        roots: Folders that relative paths are tried from, in order: that of the file which holds
            the reference, then the working directory.
        weights: Whether they are fetched too; a tokenizer and a config are small.

    Raises:
        ParameterError: The reference cannot be read.
        CheckpointError: There is no such folder, and the hub does not give it either.
    """
    whole = local_model(reference, roots)
    if whole is not None:
        return Located(reference, _opened(reference, whole))
    file = local_file(reference, roots)
    if file is not None:
        return Located(reference, Place(reference, file))
    _refuse_file(reference, roots)
    parsed = parse(reference)
    model = _place(parsed.path, parsed.revision, roots, weights)
    lora = None
    if parsed.lora is not None:
        lora = _place(parsed.lora, parsed.lora_revision, roots, weights)
    return Located(reference, model, lora)


def _place(path: str, revision: str | None, roots: Sequence[Path], weights: bool) -> Place:
    found = local_model(path, roots)
    if found is not None and revision is not None:
        kind = "folder" if found.is_dir() else "file"
        raise CheckpointError(
            f"model {path!r}: is the {kind} {found}, which has no revision {revision!r}; "
            f"revisions are for hub ids"
        )
    if found is not None:
        return _opened(path, found)
    _refuse_path(path, roots)
    folder = _from_hub(path, revision, roots, weights)
    return Place(path, folder, folder.name)  # the cache names a snapshot's folder by its commit


def _refuse_path(path: str, roots: Sequence[Path]) -> None:
    """Refuse text that can only be a path: hub ids are ``name`` or ``owner/name``."""
    if path.endswith(gguf_file.SUFFIX):
        raise CheckpointError(f"model {path!r}: no such file in {_shown(roots)}")
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise CheckpointError(f"model {path!r}: no such folder in {_shown(roots)}")


def _refuse_file(path: str, roots: Sequence[Path]) -> None:
    """Refuse a file of tensors that is not there."""
    if path.endswith(FILE):
        raise CheckpointError(f"file {path!r}: no such file in {_shown(roots)}")


def _shown(roots: Sequence[Path]) -> str:
    return " or ".join(str(root) for root in roots)


def _from_hub(path: str, revision: str | None, roots: Sequence[Path], weights: bool) -> Path:
    import huggingface_hub as hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    code = [CODE] if consent.code() else []
    left = [name for name in UNWANTED if name not in code]
    plain = [*OWN, "README.md", *KEPT, *code]
    try:
        for patterns in ([*WANTED, *code], [*WANTED, *code, *PICKLED]) if weights else (plain,):
            found = hub.snapshot_download(
                path, revision=revision, allow_patterns=patterns, ignore_patterns=left
            )
            if any(Path(found).glob("*.safetensors")):
                break
        hub.snapshot_download(path, revision=Path(found).name, allow_patterns=[CHATS])
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"model {path!r}: no folder of that name in {_shown(roots)}, and not to be had from "
            f"the hub: {str(error).splitlines()[0]}"
        ) from error
    return Path(found)


def relative_to(folder: Path, where: Path) -> str:
    """Return a reference to ``folder`` that holds in a file inside the folder ``where``."""
    path = Path(os.path.relpath(folder.resolve(), where.resolve())).as_posix()
    return path if path.startswith(".") else f"./{path}"

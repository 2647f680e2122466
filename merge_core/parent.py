"""A parent model, opened once: headers are read, tensors are mapped from the files' pages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_core.digest import content_digest
from merge_core.errors import CheckpointError
from merge_core.references import folder_of, local_folder

if TYPE_CHECKING:
    from torch import Tensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
_HEADER_BYTES = 10**8  # the format's own limit
WHOLE = ("BOOL", "U8", "I8", "I16", "I32", "I64")


@dataclass(frozen=True)
class TensorInfo:
    """What a file's header says of one tensor; ``dtype`` in the file's words, such as ``BF16``."""

    file: str
    shape: tuple[int, ...]
    dtype: str


class Parent:
    """A Hugging Face model folder with safetensors weights.

    Args:
        reference: The name it has in recipes.
        folder: Where its files are.
        from_hub: The reference is a hub id, and the folder the cache's.

    Raises:
        CheckpointError: A file is missing, truncated or no safetensors; the index names a tensor
            that is not there; a tensor has a type that cannot be merged.
    """

    def __init__(self, reference: str, folder: Path, from_hub: bool = False) -> None:
        self.reference = reference
        self.folder = folder
        self.from_hub = from_hub
        self.config: dict[str, Any] = read_json(folder / "config.json")
        self._files = {name: _open(folder / name) for name in _weight_files(folder)}
        self.tensors: Mapping[str, TensorInfo] = _headers(folder, self._files)
        _check_index(folder, self.tensors)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor as stored, a view of the file's pages; do not write to it."""
        found: Tensor = self._files[self.tensors[name].file].get_tensor(name)
        return found

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all weights by name, hex; the same however they are spread over files."""
        return content_digest((name, self.tensor(name)) for name in sorted(self.tensors))


def open_parents(references: Sequence[str], roots: Sequence[Path]) -> dict[str, Parent]:
    """Open every parent of a recipe.

    Args:
        references: As in the recipe.
        roots: Folders that relative references are tried from.

    Raises:
        CheckpointError: See :class:`Parent` and ``references.folder_of``.
    """
    return {
        name: Parent(name, folder_of(name, roots), local_folder(name, roots) is None)
        for name in references
    }


def tensor_names(folder: Path) -> tuple[str, ...]:
    """Return the names of all tensors of a model folder, sorted; reads headers, without torch.

    Raises:
        CheckpointError: A file is missing or no safetensors.
    """
    names: set[str] = set()
    for file in _weight_files(folder):
        try:
            with (folder / file).open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
                header = json.loads(stream.read(min(size, _HEADER_BYTES)))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder / file}: no safetensors file: {error}") from error
        names.update(header)
    return tuple(sorted(names - {"__metadata__"}))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: The file cannot be read, or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return data


def _weight_files(folder: Path) -> list[str]:
    if (folder / INDEX).is_file():
        placed = read_json(folder / INDEX).get("weight_map")
        if not isinstance(placed, dict) or not placed:
            raise CheckpointError(f"{folder / INDEX}: has no weight_map")
        return sorted({str(file) for file in placed.values()})
    if (folder / SINGLE).is_file():
        return [SINGLE]
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    also = f"; {pickled[0]} is a pickle, save it as safetensors first" if pickled else ""
    raise CheckpointError(f"{folder}: no {SINGLE} and no {INDEX}{also}")


def _open(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(path), framework="pt")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the shard is missing") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or no safetensors file: {error}") from error


def _headers(folder: Path, files: Mapping[str, Any]) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for file, handle in files.items():
        for name in handle.keys():  # noqa: SIM118  (a safetensors handle is no mapping)
            part = handle.get_slice(name)
            info = TensorInfo(file, tuple(part.get_shape()), part.get_dtype())
            if info.dtype not in FLOATS and info.dtype not in WHOLE:
                raise CheckpointError(f"{folder / file}: {name} is {info.dtype}, not mergeable")
            if name in tensors:
                raise CheckpointError(f"{folder}: {name} stands in two shards")
            tensors[name] = info
    return tensors


def _check_index(folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
    if not (folder / INDEX).is_file():
        return
    placed = read_json(folder / INDEX)["weight_map"]
    for name, file in placed.items():
        if name not in tensors or tensors[name].file != file:
            raise CheckpointError(f"{folder / INDEX}: names {name} in {file}, where it is not")
    unlisted = sorted(set(tensors) - set(placed))
    if unlisted:
        raise CheckpointError(f"{folder / INDEX}: does not list {unlisted[0]}, which is there")

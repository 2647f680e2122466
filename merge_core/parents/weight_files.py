"""The files that hold a model's weights: one or many, safetensors, or pickles of plain tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from merge_core.contract import Tensor
from merge_core.errors import CheckpointError, shown
from merge_core.json_text import parse_json, read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
# Bytes of an entry; of the types that can be merged.
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
WIDTHS = {**FLOATS, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_HEADER_BYTES = 10**8  # the format's own limit


@dataclass(frozen=True)
class TensorInfo:
    """What a file says of one tensor; ``dtype`` in the words of safetensors, such as ``BF16``."""

    file: str
    shape: tuple[int, ...]
    dtype: str


class WeightFile(ABC):
    """One opened file."""

    infos: Mapping[str, TensorInfo]  # what it holds

    @abstractmethod
    def tensor(self, name: str) -> Tensor:
        """Return a tensor as stored, a view of the file's pages; do not write to it."""

    def expect(self, name: str) -> None:  # noqa: B027
        """Hear that a tensor is needed soon; a mapped file has nothing to do."""


Opens = Callable[[Path], WeightFile]


def open_folder(folder: Path, opens: Opens) -> tuple[dict[str, TensorInfo], dict[str, WeightFile]]:
    """Open a folder's weights, each file by ``opens``.

    Returns:
        Tensor name -> info, and file name -> opened file.

    Raises:
        CheckpointError: A file is missing, damaged or no weights file; the index names a tensor
            that is not there; a tensor has a type that cannot be merged.
    """
    names, index = files_of(folder)
    files = {name: opens(folder / name) for name in names}
    tensors: dict[str, TensorInfo] = {}
    for file, opened in files.items():
        for name, info in opened.infos.items():
            if info.dtype not in WIDTHS:
                raise CheckpointError(f"{folder / file}: {name} is {info.dtype}, not mergeable")
            if name in tensors:
                raise CheckpointError(f"{folder}: {name} stands in two shards")
            tensors[name] = info
    if index is not None:
        _check_index(folder / index, tensors)
    return tensors, files


def files_of(folder: Path) -> tuple[list[str], str | None]:
    """Return the names of a folder's weight files, and of their index if they have one.

    Raises:
        CheckpointError: There are none, or the index is damaged.
    """
    for index, single in ((INDEX, SINGLE), (PICKLE_INDEX, PICKLE)):
        if (folder / index).is_file():
            placed = read_json(folder / index).get("weight_map")
            if not isinstance(placed, dict) or not placed:
                raise CheckpointError(f"{folder / index}: has no weight_map")
            return sorted({str(file) for file in placed.values()}), index
        if (folder / single).is_file():
            return [single], None
    raise CheckpointError(f"{folder}: no {SINGLE}, no {INDEX}, and no {PICKLE}")


def open_file(path: Path) -> WeightFile:
    """Open one file; its name tells which kind it is.

    Raises:
        CheckpointError: It is missing, damaged, or a pickle that holds more than tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: the shard is missing")
    return _Safetensors(path) if path.suffix == ".safetensors" else _Pickle(path)


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors of a model folder by name, sorted.

    torch is loaded for pickles only.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files_of(folder)[0]:
        path = folder / file
        if path.suffix == ".safetensors":
            header = {k: v for k, v in _header(path).items() if k != "__metadata__"}
            shapes |= {name: tuple(info["shape"]) for name, info in header.items()}
        else:
            shapes |= {name: info.shape for name, info in open_file(path).infos.items()}
    return dict(sorted(shapes.items()))


class _Safetensors(WeightFile):
    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self._name = path.name
        self._views: dict[str, Tensor] = {}  # making one takes as long as merging 50,000 entries
        try:
            self._file: Any = safe_open(str(path), framework="pt")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path}: damaged or no safetensors file: {error}; fetch it again"
            ) from error

    @cached_property
    def infos(self) -> Mapping[str, TensorInfo]:  # type: ignore[override]
        parts = {name: self._file.get_slice(name) for name in self._file.keys()}  # noqa: SIM118
        return {
            name: TensorInfo(self._name, tuple(part.get_shape()), part.get_dtype())
            for name, part in parts.items()
        }

    def tensor(self, name: str) -> Tensor:
        if name not in self._views:
            self._views[name] = self._file.get_tensor(name)
        return self._views[name]


class _Pickle(WeightFile):
    """Read by ``torch.load`` with ``weights_only``: it refuses everything but plain tensors."""

    def __init__(self, path: Path) -> None:
        import pickle

        import torch

        try:
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
            first = (str(error) or repr(error)).splitlines()[0]
            raise CheckpointError(
                f"{path}: not a pickle of plain weights: {first}; save it as safetensors first"
            ) from error
        plain = isinstance(data, dict) and all(isinstance(x, torch.Tensor) for x in data.values())
        if not plain:
            raise CheckpointError(
                f"{path}: holds other things than named tensors; save the weights as safetensors"
            )
        self._tensors: dict[str, Tensor] = data
        self.infos = {
            name: TensorInfo(path.name, tuple(x.shape), _word(x.dtype)) for name, x in data.items()
        }

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name].contiguous()


def _word(dtype: Any) -> str:
    """Return a torch type in the words of safetensors: ``BF16`` for ``torch.bfloat16``."""
    name = str(dtype).removeprefix("torch.")
    short = name.replace("bfloat", "BF").replace("float", "F").replace("uint", "U")
    short = short.replace("int", "I").upper()
    return short if short in WIDTHS else str(dtype)


def _header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            text = stream.read(min(size, _HEADER_BYTES)).decode("utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: no safetensors file: {error}") from error
    header = parse_json(text, f"{file}: its header")
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: no safetensors file: its header is {shown(header)[:80]}")
    return header


def _check_index(index: Path, tensors: Mapping[str, TensorInfo]) -> None:
    placed = read_json(index)["weight_map"]
    for name, file in placed.items():
        if name not in tensors or tensors[name].file != file:
            raise CheckpointError(f"{index}: names {name} in {file}, where it is not")
    unlisted = sorted(set(tensors) - set(placed))
    if unlisted:
        raise CheckpointError(f"{index}: does not list {unlisted[0]}, which is there")

"""The files that hold a model's weights: one or many, safetensors, or pickles of plain tensors."""

from __future__ import annotations

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_core.contract import Tensor
from merge_core.errors import CheckpointError, shown
from merge_core.json_text import POINTER, read_json, refuse_pointer
from merge_core.parents import quantized
from merge_core.parents.mapped_file import MappedFile
from merge_core.parents.other_formats import instead_of_weights
from merge_core.parents.safetensors_header import damaged, place, read_header

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
# Bytes of an entry; of the types that can be merged.
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
WIDTHS = {**FLOATS, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
TORCH = {"F64": "double", "F32": "float", "F16": "half", "BF16": "bfloat16", "I64": "long"}
TORCH |= {"I32": "int", "I16": "short", "I8": "int8", "U8": "uint8", "BOOL": "bool"}
ZIP = b"PK\x03\x04"


@dataclass(frozen=True)
class TensorInfo:
    """What a file says of one tensor; ``dtype`` in the words of safetensors, such as ``BF16``."""

    file: str
    shape: tuple[int, ...]
    dtype: str


class WeightFile(ABC):
    """One opened file."""

    infos: Mapping[str, TensorInfo]  # what it holds
    left_out: Mapping[str, str] = {}  # entries that are no tensors -> the reason

    @abstractmethod
    def tensor(self, name: str) -> Tensor:
        """Return a tensor as stored, a view of the file's pages; do not write to it."""

    @property
    def mapped(self) -> bool:
        """Whether tensors are the file's own pages, which several threads may read at once."""
        return True

    def expect(self, name: str) -> None:  # noqa: B027
        """Hear that a tensor is needed soon; a mapped file has nothing to do."""

    def let_go(self) -> None:  # noqa: B027
        """Hear that no tensor of before is needed soon; those that were given stay valid."""


Opens = Callable[[Path], WeightFile]


@dataclass(frozen=True)
class Weights:
    """A folder's weights."""

    files: Mapping[str, WeightFile]  # by name
    tensors: Mapping[str, TensorInfo]
    left_out: Mapping[str, str]  # what does not count -> the reason


def open_folder(folder: Path, opens: Opens) -> Weights:
    """Open a folder's weights, each file by ``opens``; an index decides which tensors there are.

    Raises:
        CheckpointError: A file is missing, damaged or no weights file; a tensor has a type that
            cannot be merged, or stands in two files.
    """
    names, index = files_of(folder)
    files = {name: opens(folder / name) for name in names}
    listed = None if index is None else _placed(folder / index)
    tensors: dict[str, TensorInfo] = {}
    left_out: dict[str, str] = {}
    for file, opened in files.items():
        left_out |= opened.left_out
        for name, info in opened.infos.items():
            if name in tensors:
                raise CheckpointError(
                    f"{folder}: {name} stands in two shards, {tensors[name].file} and {file}; "
                    f"remove one"
                )
            if listed is None or name in listed:
                tensors[name] = info
            else:
                left_out[name] = f"{file} has it, {index} does not list it"
    for name in (listed or {}).keys() - tensors.keys() - left_out.keys():
        left_out[name] = f"{index} lists it, no file has it"
    quantized.refuse(folder, {name: info.dtype for name, info in tensors.items()}, WIDTHS)
    return Weights(files, tensors, left_out)


def files_of(folder: Path) -> tuple[list[str], str | None]:
    """Return the names of a folder's weight files, and of their index if they have one.

    As in transformers a single file goes before an index, and safetensors before pickles.

    Raises:
        CheckpointError: There are none, or the index is damaged or leads out of the folder.
    """
    for single, index in ((SINGLE, INDEX), (PICKLE, PICKLE_INDEX)):
        if _there(folder / single):
            return [single], None
        if _there(folder / index):
            return sorted({*_placed(folder / index).values()}), index
    there = instead_of_weights(folder)
    raise CheckpointError(f"{folder}: {there or f'no {SINGLE}, no {INDEX}, and no {PICKLE}'}")


def _there(path: Path) -> bool:
    """Return whether there is a file; a pipe, a device or a folder of that name is refused."""
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}: expected a file, got something else of that name")
    return path.is_file()


def _placed(index: Path) -> dict[str, str]:
    """Return tensor -> file, by an index whose files all lie in its folder."""
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise CheckpointError(f"{index}: has no weight_map")
    for name, file in placed.items():
        if not isinstance(file, str):
            raise CheckpointError(
                f"{index}: {name}: expected a file's name, got {shown(file)[:80]}"
            )
    for file in {*placed.values()}:
        if not _inside(index.parent, file):
            raise CheckpointError(
                f"{index}: {file[:80]!r} leads out of the folder; put the file itself there"
            )
    return placed


def _inside(folder: Path, file: str) -> bool:
    """Return whether a file that an index names lies in the folder, links followed.

    The hub's cache has links in ``snapshots/COMMIT`` to its ``blobs``.
    """
    if Path(file).is_absolute() or ".." in Path(file).parts or "\0" in file:
        return False
    try:
        found, here = (folder / file).resolve(), folder.resolve()
    except (OSError, RuntimeError):  # a circle of links
        return False
    blobs = here.parent.parent / "blobs" if here.parent.name == "snapshots" else here
    return found.is_relative_to(here) or found.is_relative_to(blobs)


def open_file(path: Path) -> WeightFile:
    """Open one file; its name tells which kind it is.

    Raises:
        CheckpointError: It is missing, damaged, or a pickle that holds more than tensors.
    """
    try:
        if not _there(path):
            raise CheckpointError(f"{path}: the shard is missing")
    except OSError as error:  # a name that is too long
        raise CheckpointError(f"{path}: the shard cannot be read: {error.strerror}") from error
    return _Safetensors(path) if path.suffix == ".safetensors" else _Pickle(path)


def shapes_of(tensors: Mapping[str, TensorInfo]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors by name."""
    return {name: info.shape for name, info in tensors.items()}


def bytes_as(info: TensorInfo, dtype: str | None) -> int:
    """Return the bytes of a tensor in a type, by torch's name; None: as stored."""
    return math.prod(info.shape) * {None: WIDTHS[info.dtype], "float32": 4}.get(dtype, 2)


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors of a model folder by name, sorted; see ``tensor_infos``."""
    return shapes_of(tensor_infos(folder))


def tensor_infos(folder: Path) -> dict[str, TensorInfo]:
    """Return what a model folder's files say of all tensors, by name, sorted.

    torch is loaded for pickles only.

    Raises:
        CheckpointError: A file is missing or damaged.
    """

    def headers(path: Path) -> WeightFile:
        return _Header(path) if path.suffix == ".safetensors" else open_file(path)

    tensors = open_folder(folder, headers).tensors
    return {name: tensors[name] for name in sorted(tensors)}


class _Header(WeightFile):
    """What a safetensors file says of its tensors."""

    def __init__(self, path: Path) -> None:
        self.infos = _infos(path, read_header(path, WIDTHS)[1])

    def tensor(self, name: str) -> Tensor:
        raise NotImplementedError


class _Safetensors(WeightFile):
    def __init__(self, path: Path) -> None:
        begin, entries = read_header(path, WIDTHS)
        self.infos = _infos(path, entries)
        self._places = {
            name: (begin + start, begin + stop)
            for name, (start, stop) in zip(entries, map(place, entries.values()), strict=True)
        }
        self._views: dict[str, Tensor] = {}  # making one takes as long as merging 50,000 entries
        try:
            self._file = MappedFile(path)
        except OSError as error:
            raise damaged(path, str(error)) from error

    def tensor(self, name: str) -> Tensor:
        import torch

        if name not in self._views:
            info, data = self.infos[name], self._file.view(*self._places[name])
            self._views[name] = data.view(getattr(torch, TORCH[info.dtype])).reshape(info.shape)
        return self._views[name]

    def let_go(self) -> None:
        self._file.let_go()


class _Whole(io.BufferedReader):
    """A file of which no more is asked than it has: for a length in it memory would be taken."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        """Read so many bytes, or as many as there are."""
        left = self._size - self.tell()
        return super().read(left if size is None or size < 0 else min(size, left))


class _Pickle(WeightFile):
    """Read by ``torch.load`` with ``weights_only``: it refuses everything but plain data."""

    def __init__(self, path: Path) -> None:
        import torch

        try:  # files of torch before 1.6 are no zip archives and cannot be mapped
            with _Whole(path) as stream:
                refuse_pointer(start := stream.read(len(POINTER)), path)
                mmap = start.startswith(ZIP)
                stream.seek(0)
                source = path if mmap else stream
                data = torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
        except CheckpointError:
            raise
        except Exception as error:  # it raises whatever the bytes lead to
            first = (str(error) or repr(error)).splitlines()[0]
            raise CheckpointError(
                f"{path}: not a pickle of plain weights: {first}; save it as safetensors first"
            ) from error
        entries = data if isinstance(data, dict) else {}
        self._tensors = {str(name): x for name, x in entries.items() if _is_plain(x)}
        if not self._tensors:
            raise CheckpointError(
                f"{path}: holds no named tensors but a {type(data).__name__}; save the weights as "
                f"safetensors"
            )
        self.infos = {
            name: TensorInfo(path.name, tuple(x.shape), _word(x.dtype))
            for name, x in self._tensors.items()
        }
        others = {str(name): type(x).__name__ for name, x in entries.items() if not _is_plain(x)}
        self.left_out = {name: f"no plain tensor but a {kind}" for name, kind in others.items()}

    def tensor(self, name: str) -> Tensor:
        found: Tensor = self._tensors[name].contiguous()
        return found


def _word(dtype: Any) -> str:
    """Return a torch type in the words of safetensors: ``BF16`` for ``torch.bfloat16``."""
    name = str(dtype).removeprefix("torch.")
    short = name.replace("bfloat", "BF").replace("float", "F").replace("uint", "U")
    short = short.replace("int", "I").upper()
    return short if short in WIDTHS else str(dtype)


def _is_plain(x: Any) -> bool:
    """Return whether this is a tensor that has memory of its own for each of its entries."""
    import torch

    if not isinstance(x, torch.Tensor) or x.layout != torch.strided or x.device.type != "cpu":
        return False
    return not x.is_quantized and x.numel() * x.element_size() <= x.untyped_storage().nbytes()


def _infos(path: Path, entries: Mapping[str, Any]) -> dict[str, TensorInfo]:
    """Return what a header says of tensors; ``entries``: see ``read_header``."""
    return {
        name: TensorInfo(path.name, tuple(said["shape"]), said["dtype"])
        for name, said in entries.items()
    }

"""Where parents are kept: on the accelerator, in pinned host memory, or as mapped files.

What is kept are the tensors of files, each file once: adapters stay low-rank, and parents that
share a base share its tensors. Merges run where tensors are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from merge_core.contract import Tensor
from merge_core.errors import ParameterError
from merge_core.parents.weight_files import TensorInfo, WeightFile, bytes_as, open_file

SHARE = 4  # one part in so many of the host's free memory is for what is computed once
UNKNOWN = 2**30  # bytes of it where the system does not tell what is free
LEFT = 8  # one part in so many of a memory is left for all else
MEMORY, GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
Where = Literal["device", "pinned", "mapped"]


class Memory(NamedTuple):
    """Bytes of one memory."""

    free: int
    total: int

    def __str__(self) -> str:
        return f"{self.free / 2**30:.1f} of {_gib(self.total)} free"


@dataclass(frozen=True)
class Placement:
    """Where parents are kept, why, and bytes for what is computed once where merges run."""

    where: Where
    reason: str
    room: int


def decide(
    asked: str,
    device: str,
    model: int,
    parents: int,
    sizes: Sequence[int],
    memories: tuple[Memory | None, Memory],
) -> Placement:
    """Decide where parents are kept.

    ``auto``: on the device, where parents and live model leave an eighth of it free (half of that
    for what is computed once, half for temporaries and the evaluation); else in pinned memory,
    where that leaves an eighth of the host's free; else, and on a CPU, they stay mapped. What is
    asked for by name needs no eighth. What a CPU computes once has the room of ``host_room``.

    Args:
        asked: The study file's ``engine.parents``.
        device: Of the live model, in torch's words.
        model: Its bytes.
        parents: How many there are.
        sizes: Bytes of all their tensors, each file once.
        memories: The device's, None if it is no CUDA or ROCm device; and the host's.

    Raises:
        ParameterError: What is asked for cannot be.
    """
    (on_device, on_host), room = memories, host_room(memories[1], model)
    if asked == "mapped":
        return Placement("mapped", "as the study file asks, or as the study began", room)
    if on_device is None:
        why = "files are memory already" if device[:3] == "cpu" else "none is placed, only on cuda"
        if asked != "auto":
            rule = f"expected auto or mapped (on {device} {why}), got {asked!r}"
            raise ParameterError(f"engine.parents: {rule}")
        return Placement("mapped", f"on {device} {why}", room)
    pinned = sum(1 << (n - 1).bit_length() for n in sizes if n)  # torch takes powers of two
    said = [f"{parents} parents, {_gib(sum(sizes))}"]
    options: list[tuple[Where, int, Memory, str]] = [
        ("device", sum(sizes) + model, on_device, f"beside the model, {_gib(model)}, on {device}"),
        ("pinned", pinned, on_host, f"into pinned memory, where they take {_gib(pinned)}"),
    ]
    for where, needed, memory, place in options:
        if asked in ("auto", where):
            fits = needed <= memory.free - (memory.total // LEFT if asked == "auto" else 0)
            said.append(f"{'fit' if fits else 'do not fit'} {place}: {memory}")
            if fits:
                return Placement(where, ", ".join(said), on_device.total // LEFT // 2)
    if asked != "auto":
        raise ParameterError(f"engine.parents: {', '.join(said)}; set it to auto or mapped")
    return Placement("mapped", ", ".join(said), room)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def sizes(tensors: Mapping[str, TensorInfo]) -> list[int]:
    """Return the bytes of each tensor as stored."""
    return [bytes_as(info, None) for info in tensors.values()]


def memories(device: str) -> tuple[Memory | None, Memory]:
    """Return the memory of a device, if it is a CUDA or ROCm one, and that of the host."""
    import torch

    there = Memory(*torch.cuda.mem_get_info(device)) if device.startswith("cuda") else None
    return there, host_memory()


def host_memory() -> Memory:
    """Return the host's memory within a container's limit; none where Linux does not tell.

    Pages of files count as free: they go when memory is asked for.
    """
    if not MEMORY.is_file():
        return Memory(0, 0)
    said = dict(line.split(":") for line in MEMORY.read_text().splitlines())
    free, total = (int(said[key].split()[0]) * 1024 for key in ("MemAvailable", "MemTotal"))
    for limit, used, pages in (
        ("memory.max", "memory.current", "file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_cache"),
    ):
        most = _number(GROUP / limit)
        if most is not None:
            statistics = (GROUP / limit).with_name("memory.stat")
            taken = (_number(GROUP / used) or 0) - _counted(statistics, pages)
            free, total = min(free, max(0, most - taken)), min(total, most)
    return Memory(free, total)


def host_room(memory: Memory | None = None, model: int = 0) -> int:
    """Return the bytes for what is computed once where merges run on the CPU.

    A quarter of what ``model``, bytes that are still to be made, leaves free of the host's
    ``memory``, by default that of now; 1 GiB where the system does not tell.
    """
    memory = memory or host_memory()
    return max(0, memory.free - model) // SHARE if memory.total else UNKNOWN


def _number(file: Path) -> int | None:
    """Return the number that a file of a control group holds; None: no file, or no limit."""
    text = file.read_text().strip() if file.is_file() else "max"
    return None if text == "max" else int(text)


def _counted(file: Path, name: str) -> int:
    """Return the entry ``name`` of a control group's statistics, 0 if it is not there."""
    lines = file.read_text().splitlines() if file.is_file() else ()
    return next((int(x.split()[1]) for x in lines if x.split()[0] == name), 0)


class Store:
    """Opens weight files, each once, and gives their tensors where parents are kept: mapped."""

    def __init__(self) -> None:
        self._files: dict[Path, Kept] = {}

    def open(self, path: Path) -> WeightFile:
        """Open a file; see ``weight_files.open_file``."""
        if path not in self._files:
            self._files[path] = Kept(open_file(path))
        return self._files[path]

    def sizes(self) -> list[int]:
        """Return the bytes of all tensors as stored."""
        return [size for file in self._files.values() for size in sizes(file.infos)]

    def place(self, where: Where, device: str) -> None:
        """Give tensors on a device from now on, unless they stay mapped."""
        import torch

        cuda = where == "pinned" and device.startswith("cuda")
        stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
        for file in self._files.values():
            file.place(where, torch.device(device), stream)


class Kept(WeightFile):
    """A file whose tensors are read once and kept, if they are not mapped. See ``WeightFile``.

    From pinned memory a tensor is copied at each use, by a stream of its own; who takes it waits
    for it, on the device, and its memory is not used again before the taker's work is done.
    """

    def __init__(self, file: WeightFile) -> None:
        self.infos, self.left_out, self._file = file.infos, file.left_out, file
        self.place("mapped", None, None)

    def place(self, where: Where, device: Any, stream: Any) -> None:
        """See ``Store.place``; copies from pinned memory run on ``stream``."""
        self._where, self._device, self._stream = where, device, stream
        self._kept: dict[str, Tensor] = {}
        self._sent: dict[str, tuple[Tensor, Any]] = {}

    @property
    def mapped(self) -> bool:
        """See ``WeightFile``; copies on a device are one thread's."""
        return self._where == "mapped"

    def tensor(self, name: str) -> Tensor:
        """Return a tensor; do not write to it."""
        import torch

        if self._where == "mapped":
            return self._file.tensor(name)
        if self._where == "device":
            if name not in self._kept:
                self._kept[name] = self._file.tensor(name).to(self._device, copy=True)
            return self._kept[name]
        self.expect(name)
        tensor, event = self._sent.pop(name)
        if event is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(event)
            tensor.record_stream(current)
        return tensor

    def expect(self, name: str) -> None:
        """Let a tensor that is needed soon be on its way from pinned memory."""
        import torch

        if self._where != "pinned" or name in self._sent:
            return
        if name not in self._kept:
            mapped = self._file.tensor(name)
            self._kept[name] = mapped.clone() if self._stream is None else mapped.pin_memory()
        with torch.cuda.stream(self._stream):
            tensor = self._kept[name].to(self._device, non_blocking=True, copy=True)
            event = None if self._stream is None else self._stream.record_event()
        self._sent[name] = tensor, event

    def let_go(self) -> None:
        """See ``WeightFile``; what is kept elsewhere stays there."""
        self._file.let_go()

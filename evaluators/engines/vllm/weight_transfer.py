"""How weights get into vLLM's workers: read from an iterator, or from a socket in other processes.

vLLM adds ``WeightTaker`` to its worker class by name; nothing here imports vLLM on its own.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    Weights = Iterable[tuple[str, Tensor]]

_PATIENCE = 0.2  # seconds between two looks at whether the workers still live


class WeightTaker:
    """What every worker of our engine can do beside a worker's own work."""

    get_model: Callable[[], Any]
    model_runner: Any

    def take_weights(self, weights: Weights) -> None:
        """Replace all weights by these, named as in a checkpoint.

        Raises:
            RuntimeError: A weight of the model was not among them.
        """
        model = self.get_model()
        wanted = {name for name, _ in model.named_parameters()}
        with _watched(model) as loaded:
            self.model_runner.reload_weights(weights_iterator=iter(weights))
        _pack_tied_heads(model)
        _pack_experts(model)
        left = sorted(wanted - loaded) if loaded else []
        if left:
            raise RuntimeError(f"{left[0]}: a weight that no tensor goes to ({len(left)} such)")

    def clear_cache(self) -> None:
        """Overwrite what earlier prompts left: a NaN there reaches others through their padding."""
        for held in self.model_runner.kv_caches:
            for part in held if isinstance(held, list | tuple) else [held]:
                part.zero_()


@contextmanager
def _watched(model: Any) -> Iterator[set[str]]:
    """Note which weights a model says that it loaded; nothing where it does not say."""
    load = model.load_weights
    loaded: set[str] = set()

    def watched(*args: Any, **kwargs: Any) -> Any:
        found = load(*args, **kwargs)
        loaded.update(found or ())
        return found

    model.load_weights = watched
    try:
        yield loaded
    finally:
        del model.load_weights


def _pack_tied_heads(model: Any) -> None:
    """Pack a CPU's heads again: vLLM does not for one that shares the embedding's weights.

    Without this its logits come from the weights that the engine started with.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for layer in model.modules():
        if isinstance(layer, ParallelLMHead) and hasattr(layer, "cpu_linear"):
            layer.quant_method.process_weights_after_loading(layer)


def _pack_experts(model: Any) -> None:
    """Pack a CPU's experts again: vLLM does so at its first load alone.

    Without this the kernels read weights in another order than the one they are written in.
    """
    for layer in model.modules():
        kernel = getattr(getattr(layer, "quant_method", None), "moe_kernel", None)
        if kernel is not None and next(layer.parameters()).device.type == "cpu":
            kernel.fused_experts.process_weights_after_loading(layer)


@dataclass(frozen=True)
class Received:
    """Weights that come through a socket; to be iterated once, in the process they go to."""

    address: str

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        import torch

        with Client(self.address, "AF_UNIX") as pipe:
            while (head := pipe.recv()) is not None:
                name, dtype, shape = head
                flat = torch.empty(pipe.recv(), dtype=torch.uint8)
                if flat.numel():
                    pipe.recv_bytes_into(flat.numpy())
                yield name, flat.view(getattr(torch, dtype)).reshape(shape)


def send(weights: Weights, readers: int, ask: Callable[[Received], None]) -> None:
    """Send weights to other processes of this machine, one tensor at a time.

    ``ask`` makes ``readers`` processes iterate what it is given, and returns when they have.

    Raises:
        Exception: What ``ask`` raised, or ``weights``.
    """
    with (
        tempfile.TemporaryDirectory(prefix="mergetune-") as folder,
        socket.socket(socket.AF_UNIX) as door,
    ):
        address = str(Path(folder) / "weights")  # in a folder that only this user can enter
        door.bind(address)
        door.listen(readers)
        door.settimeout(_PATIENCE)
        pool = ThreadPoolExecutor(1)
        asking = pool.submit(ask, Received(address))
        pool.shutdown(wait=False)  # takes nothing more
        pipes: list[Connection] = []
        try:
            while len(pipes) < readers and not asking.done():
                try:
                    there, _ = door.accept()
                except TimeoutError:
                    continue
                there.setblocking(True)
                pipes.append(Connection(there.detach()))
            if len(pipes) == readers:
                _send_all(weights, pipes)
        except OSError:
            if asking.exception() is None:  # a reader is gone, and has not said why
                raise
        finally:
            for pipe in pipes:
                pipe.close()
        asking.result()


def _send_all(weights: Weights, pipes: list[Connection]) -> None:
    import torch

    for name, tensor in weights:
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        head = (name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for pipe in pipes:
            pipe.send(head)
            pipe.send(flat.numel())
            if flat.numel():
                pipe.send_bytes(flat.numpy().data)
    for pipe in pipes:
        pipe.send(None)

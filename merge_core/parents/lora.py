"""A parent plus a LoRA adapter, kept low-rank: sums are made when asked for, on all threads.

A study remembers them as far as there is room (``merge/execute.py``).

The arithmetic is that of peft's ``merge_and_unload`` in float32, but what fits only in part is
refused, where peft warns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from merge_core.contract import Tensor
from merge_core.errors import CheckpointError
from merge_core.kernels.threads import one_thread
from merge_core.numerics.products import low_rank_sum
from merge_core.numerics.weights_hash import Content, content_of
from merge_core.parents.locate import Located
from merge_core.parents.lora_keys import WEIGHTS, Change, changes
from merge_core.parents.protocol import Changed, Parent
from merge_core.parents.weight_files import Opens, open_file

PICKLE = "adapter_model.bin"


class Adapted(Changed):
    """A parent whose weights are changed by a LoRA adapter; used like a ``Parent``.

    Args:
        located: The reference, and the adapter's folder as its ``lora``, with
            ``adapter_config.json`` and ``adapter_model.safetensors`` (or ``.bin``).
        parent: The base; config and tokenizer are its own.

    Raises:
        CheckpointError: A file is missing or damaged; the config asks for what is not read here;
            a key of the file has no place in the parent, or lacks its counterpart.
        ShapeError: A low-rank pair or a replaced tensor does not fit the parent's tensor.
    """

    def __init__(self, located: Located, parent: Parent, opens: Opens = open_file) -> None:
        assert located.lora is not None
        folder = located.lora.folder
        self._file = opens(_weight_file(folder))
        self._stored = self._file.infos
        parent, self._changes = changes(located.reference, parent, folder, self._stored)
        super().__init__(parent)
        self.located, self.reference = located, located.reference

    def tensor(self, name: str) -> Tensor:
        """Return a tensor: the parent's view, or float32 where the adapter changes it."""
        change = self._changes.get(name)
        if change is None:
            return self._parent.tensor(name)
        whole = self._read(change.replaced) if change.replaced else self._parent.tensor(name)
        if change.added is not None:
            return self._read(change.added).mul(change.scale).add_(whole.float())
        return self._adapted(whole, change) if change.a else whole.float()

    def makes(self, name: str) -> bool:
        """See ``Parent``."""
        return name in self._changes or super().makes(name)

    def let_go(self) -> None:
        """See ``Parent``."""
        super().let_go()
        self._file.let_go()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the parent's digest, the adapter's tensors and how they are applied, hex."""
        how = {name: asdict(change) for name, change in self._changes.items()}
        parts = [self._parent.digest, self._own.digest, json.dumps(how, sort_keys=True)]
        return sha256("\x1f".join(parts).encode()).hexdigest()

    @property
    def sums(self) -> Mapping[str, int]:
        """Those of the parent and, by their names in its file, of the adapter; see ``Parent``."""
        return {**self._parent.sums, **self._own.sums}

    @cached_property
    def _own(self) -> Content:
        return content_of((key, self._file.tensor(key)) for key in sorted(self._stored))

    def _read(self, key: str) -> Tensor:
        found: Tensor = self._file.tensor(key).float()
        return found

    def _adapted(self, weight: Tensor, change: Change) -> Tensor:
        """Return ``weight + scale * B @ A``; with DoRA, each output's part has its magnitude.

        More threads may sum a norm in another order, so one thread does these.
        """
        import torch

        a, b = (self._file.tensor(str(key)) for key in (change.a, change.b))
        if change.cut is not None:
            a, b = change.cut.of(a, b)
        # Copies start at a multiple of 64 bytes wherever the file's pages had them.
        a, b = (x.float().clone(memory_format=torch.contiguous_format) for x in (a, b))
        pair = (a.mT, b.mT) if change.transposed else (b, a)
        if weight.dim() > 2:  # fused experts
            parts = zip(weight, *pair, strict=True)
            return torch.stack([low_rank_sum(one, x, y, change.scale) for one, x, y in parts])
        summed = low_rank_sum(weight, *pair, change.scale)
        if change.magnitude is None:
            return summed
        with one_thread():
            norm = torch.linalg.vector_norm(summed, dim=0 if change.transposed else 1, keepdim=True)
        return summed.mul_(self._read(change.magnitude).reshape(norm.shape) / norm)


def _weight_file(folder: Path) -> Path:
    for name in (WEIGHTS, PICKLE):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder}: no {WEIGHTS} and no {PICKLE}")

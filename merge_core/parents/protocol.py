"""What a plan and its execution need of a model, wherever its tensors come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from merge_core.architecture.model_class import Architecture
from merge_core.parents.locate import Located
from merge_core.parents.weight_files import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor


class Parent(Protocol):
    """A model folder, one with an adapter, one with another vocabulary, or another document."""

    @property
    def reference(self) -> str:
        """The name it has in recipes."""

    @property
    def located(self) -> Located | None:
        """Where its files are; None for what exists in memory only."""

    @property
    def folder(self) -> Path:
        """The folder that tokenizer and generation config come from."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Contents of ``config.json``."""

    @property
    def architecture(self) -> Architecture:
        """Facts of its model class, under the names of its tensors."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """What it holds; known without reading a tensor."""

    @property
    def digest(self) -> str:
        """SHA-256 of its weights, hex."""

    def tensor(self, name: str) -> Tensor:
        """Return a tensor; do not write to it."""
        ...

    def expect(self, name: str) -> None:
        """Hear that a tensor is needed soon."""
        ...

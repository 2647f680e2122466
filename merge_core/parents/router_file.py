"""A file of router tensors as a parent; it gives nothing but them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merge_core.architecture.model_class import Architecture
from merge_core.contract import Tensor
from merge_core.parents.locate import Located
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import Opens, open_file


class RouterFile(Parent):
    """A safetensors file; its place is the file itself, where other parents have a folder.

    Raises:
        CheckpointError: It is damaged.
    """

    def __init__(self, located: Located, opens: Opens = open_file) -> None:
        self.located = located
        self.reference, self.folder = located.reference, located.model.folder
        self.config: Mapping[str, Any] = {}
        self._file = opens(self.folder)
        self.tensors, self.left_out = self._file.infos, self._file.left_out
        self.architecture = Architecture({n: x.shape for n, x in self.tensors.items()}, {})

    def tensor(self, name: str) -> Tensor:
        """Return a tensor as stored; do not write to it."""
        return self._file.tensor(name)

    def expect(self, name: str) -> None:
        """See ``Parent``."""
        self._file.expect(name)

"""What goes into a merge: a model folder, opened once; its tensors are mapped from the disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from merge_core.architecture import model_class
from merge_core.architecture.model_class import Architecture
from merge_core.numerics.weights_hash import content_digest
from merge_core.parents import weight_files
from merge_core.parents.locate import Located, locate
from merge_core.parents.weight_files import TensorInfo, WeightFile, open_file

if TYPE_CHECKING:
    from torch import Tensor

Opens = Callable[[Path], WeightFile]
FLOATS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}


class Parent(Protocol):
    """What the plan and its execution need of a model, wherever its tensors come from."""

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


class Checkpoint:
    """A Hugging Face model folder.

    Args:
        located: The folder, and the reference that led to it.
        opens: Opens its files.

    Raises:
        CheckpointError: A file is missing or damaged; the index names a tensor that is not there;
            a tensor has a type that cannot be merged.
    """

    def __init__(self, located: Located, opens: Opens = open_file) -> None:
        self.located: Located = located
        self.reference = located.reference
        self.folder = located.model.folder
        self.config: Mapping[str, Any] = weight_files.read_json(self.folder / "config.json")
        self.tensors, self._files = weight_files.open_folder(self.folder, opens)

    @cached_property
    def architecture(self) -> Architecture:
        """Facts of its model class, under the names of its tensors."""
        return model_class.read(self.config, str(self.folder)).with_names_of(self.tensors)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor as stored, a view of the file's pages; do not write to it."""
        return self._files[self.tensors[name].file].tensor(name)

    def expect(self, name: str) -> None:
        """See ``Parent``."""
        self._files[self.tensors[name].file].expect(name)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all weights by name, hex; the same however they are spread over files."""
        return content_digest((name, self.tensor(name)) for name in sorted(self.tensors))


def open_parents(
    references: Sequence[str], roots: Sequence[Path], opens: Opens = open_file
) -> dict[str, Parent]:
    """Open every parent of a recipe.

    Args:
        references: As in the recipe.
        roots: Folders that relative references are tried from.
        opens: Opens weight files; see ``placement``.

    Raises:
        CheckpointError: See :class:`Checkpoint`, ``lora.Adapted`` and ``locate.locate``.
    """
    return {name: _open(locate(name, roots), opens) for name in references}


def _open(located: Located, opens: Opens) -> Parent:
    from merge_core.parents.lora import Adapted

    if located.lora is None:
        return Checkpoint(located, opens)
    base = Checkpoint(Located(located.model.path, located.model), opens)
    return Adapted(located, base, opens)

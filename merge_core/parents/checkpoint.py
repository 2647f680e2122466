"""A model folder as a parent, opened once; its tensors are mapped from the disk."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from merge_core.architecture import model_class
from merge_core.architecture.model_class import Architecture
from merge_core.numerics.weights_hash import content_digest
from merge_core.parents import weight_files
from merge_core.parents.locate import Located
from merge_core.parents.weight_files import Opens, open_file

if TYPE_CHECKING:
    from torch import Tensor


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

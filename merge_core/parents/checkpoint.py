"""A model folder as a parent, opened once; its tensors are mapped from the disk."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from merge_core.architecture import model_class, remote_code
from merge_core.contract import Tensor
from merge_core.errors import CheckpointError
from merge_core.json_text import read_json
from merge_core.parents import weight_files
from merge_core.parents.locate import Located
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import Opens, TensorInfo, open_file


class Checkpoint(Parent):
    """A Hugging Face model folder.

    Raises:
        CheckpointError: A file is missing or damaged, or its index leads out of the folder; a
            tensor has a type that cannot be merged, or stands in two files. From ``tensors``:
            transformers makes no model of its config; two names are one tensor of its class.
    """

    def __init__(self, located: Located, opens: Opens = open_file) -> None:
        self.located = located
        self.reference, self.folder = located.reference, located.model.folder
        weight_files.files_of(self.folder)  # what has none may be no model at all
        self.config = remote_code.located(read_json(self.folder / "config.json"), self.folder)
        weights = weight_files.open_folder(self.folder, opens)
        self._stored, self._files, self.left_out = weights.tensors, weights.files, weights.left_out

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:  # type: ignore[override]
        """See ``Parent``."""
        return {name: self._stored[key] for name, key in self._keys.items()}

    @cached_property
    def _keys(self) -> dict[str, str]:
        """Name of a tensor -> what its file calls it."""
        names, number = sorted(self._stored), len(self._stored)
        keys: dict[str, str] = {}
        for key, name in model_class.stored_names(self.config, names, self.where, number).items():
            if keys.setdefault(name, key) != key:
                raise CheckpointError(
                    f"{self.folder}: {keys[name]} and {key} are one tensor of the model class, "
                    f"{name}; remove one"
                )
        return keys

    def tensor(self, name: str) -> Tensor:
        """Return a tensor as stored, a view of the file's pages; do not write to it."""
        return self._files[self.tensors[name].file].tensor(self._keys[name])

    def expect(self, name: str) -> None:
        """See ``Parent``."""
        self._files[self.tensors[name].file].expect(self._keys[name])

    @property
    def mapped(self) -> bool:
        """See ``Parent``."""
        return all(file.mapped for file in self._files.values())

    def let_go(self) -> None:
        """See ``Parent``."""
        for file in self._files.values():
            file.let_go()

"""A model folder as a parent, opened once; its tensors are mapped from the disk."""

from __future__ import annotations

from merge_core.contract import Tensor
from merge_core.json_text import read_json
from merge_core.parents import weight_files
from merge_core.parents.locate import Located
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import Opens, open_file


class Checkpoint(Parent):
    """A Hugging Face model folder.

    Raises:
        CheckpointError: A file is missing or damaged; the index names a tensor that is not there;
            a tensor has a type that cannot be merged.
    """

    def __init__(self, located: Located, opens: Opens = open_file) -> None:
        self.located = located
        self.reference, self.folder = located.reference, located.model.folder
        self.config = read_json(self.folder / "config.json")
        self.tensors, self._files = weight_files.open_folder(self.folder, opens)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor as stored, a view of the file's pages; do not write to it."""
        return self._files[self.tensors[name].file].tensor(name)

    def expect(self, name: str) -> None:
        """See ``Parent``."""
        self._files[self.tensors[name].file].expect(name)

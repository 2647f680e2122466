"""What can be seen of a study's models without opening them, and how its file names them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from merge_core.architecture import layers
from merge_core.errors import CheckpointError
from merge_core.json_text import read_json
from merge_core.parents.locate import local_model, locate_here, not_local
from merge_core.parents.weight_files import tensor_shapes
from merge_core.recipe.model_reference import parse
from merge_core.recipe.read import DTYPES


@dataclass(frozen=True)
class Seen:
    """What a model on this disk shows; ``layers`` is None where it has no one stack of them."""

    folder: Path
    layers: int | None
    dtype: str | None  # what its config says


def look(reference: str, roots: Sequence[Path]) -> Seen | None:
    """Return what a model shows, or None where it is not on this disk outside the hub's cache.

    Raises:
        CheckpointError: It can only be a folder and is not there, or its files cannot be read.
    """
    folder = None if not_local(reference, roots) else locate_here(reference, roots)
    if folder is None:
        return None
    names = tensor_shapes(folder)
    config = read_json(folder / "config.json")
    said = str(config.get("dtype", config.get("torch_dtype"))).removeprefix("torch.")
    return Seen(folder, _layers(names), said if said in DTYPES else None)


def _layers(names: Sequence[str] | dict[str, Any]) -> int | None:
    try:
        return layers.of(names).count or None
    except CheckpointError:  # several stacks: numbers cannot be spread over the layers
        return None


@dataclass(frozen=True)
class Paths:
    """Paths as the user gave them -> paths as a file in another folder says them.

    Args:
        roots: Where relative ones were tried from.
        folder: That of the file.
    """

    roots: tuple[Path, ...]
    folder: Path

    @classmethod
    def from_file(cls, source: Path, file: Path) -> Paths:
        """Return those of a file that is made of another one, whose folder is tried first."""
        return cls((Path(os.path.abspath(source)).parent, Path.cwd()), _folder_of(file))

    @classmethod
    def from_here(cls, file: Path) -> Paths:
        """Return those of a file that is made of what the command line says."""
        return cls((Path.cwd(),), _folder_of(file))

    def model(self, reference: str) -> Any:
        """Return a model reference as the file writes it: text, or the mapping form."""
        moved = self.reference(reference)
        return json.loads(moved) if moved.startswith("{") else moved

    def reference(self, reference: str) -> str:
        """Return a model reference for the file, as text."""
        if local_model(reference, self.roots) is not None:
            return self._moved(reference)
        parts = parse(reference)
        lora = None if parts.lora is None else self._moved(parts.lora)
        return str(replace(parts, path=self._moved(parts.path), lora=lora))

    def file(self, path: Path) -> str:
        """Return the path of a file or a folder, relative to the working directory until now."""
        if path.is_absolute():
            return path.as_posix()
        return _from(Path.cwd() / path, self.folder)

    def _moved(self, path: str) -> str:
        if Path(path).expanduser().is_absolute():
            return path
        for root in self.roots:
            if local_model(path, (root,)) is not None:
                return _from(root / path, self.folder)
        return path  # of the hub


def other_vocabulary(main: str) -> str:
    """Return what becomes of a tokenizer that merged models were to have; ``main`` gives ours."""
    return (
        f"not carried over: candidates have the tokenizer of {main}; where vocabularies "
        f"differ, merge each model to a folder with that tokenizer first"
    )


def _folder_of(file: Path) -> Path:
    return Path(os.path.abspath(file.parent))


def _from(path: Path, folder: Path) -> str:
    """Return a path relative to a folder, which need not exist yet; links on the way are kept."""
    here, there = os.path.realpath(folder), os.path.realpath(path)
    said = os.path.relpath(os.path.abspath(path), os.path.abspath(folder))
    followed = os.path.realpath(os.path.normpath(os.path.join(here, said)))
    return Path(said if followed == there else os.path.relpath(there, here)).as_posix()

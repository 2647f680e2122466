"""What a plan and its execution need of a model, wherever its tensors come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from merge_core.architecture import model_class
from merge_core.architecture.model_class import Architecture
from merge_core.contract import Tensor
from merge_core.numerics.weights_hash import Content, content_of
from merge_core.parents.locate import Located
from merge_core.parents.weight_files import TensorInfo


class Parent(ABC):
    """A model folder, one with an adapter, one with another vocabulary, or another document."""

    reference: str  # the name it has in recipes
    located: Located | None  # where its files are; None for what exists in memory only
    folder: Path  # that tokenizer and generation config come from
    config: Mapping[str, Any]  # contents of config.json
    # What it holds, known without reading a tensor; those of its class by the names under which the
    # class stores them, whatever a file calls them.
    tensors: Mapping[str, TensorInfo]
    left_out: Mapping[str, str] = {}  # what its files hold and is not among them -> the reason
    _seen: Content | None = None

    @cached_property
    def architecture(self) -> Architecture:
        """Facts of its model class."""
        return model_class.read(self.config, self.where, len(self.tensors))

    @property
    def where(self) -> str:
        """What messages call it: its folder or GGUF file, if it has one."""
        return str(self.located.model.shown) if self.located else self.reference

    def stored_names(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return name in a file or of a module's tensor -> name under which the class stores it."""
        return model_class.stored_names(self.config, names, self.where, len(self.tensors))

    @property
    def digest(self) -> str:
        """SHA-256 of all weights by name, hex; the same however they are spread over files."""
        return self._content.digest

    @property
    def sums(self) -> Mapping[str, int]:
        """Tensor -> a number that tells whether it is another one, see ``Content``."""
        return self._content.sums

    @property
    def _content(self) -> Content:
        # no cached_property: before Python 3.12 one lock of it holds for all parents
        if self._seen is None:
            self._seen = content_of(self._each())
        return self._seen

    def _each(self) -> Iterator[tuple[str, Tensor]]:
        for name in sorted(self.tensors):
            yield name, self.tensor(name)
            self.let_go()

    @cached_property
    def apart(self) -> frozenset[str]:
        """Names that its class ties to others and that it stores with other values than theirs."""
        there = [pair for pair in self.architecture.tied.items() if {*pair} <= self.tensors.keys()]
        return frozenset(one for one, other in there if not self._equal(one, other))

    @cached_property
    def views(self) -> dict[frozenset[str], Parent]:
        """What was made of it, kept by what it differs in: caches know parents by identity."""
        return {}

    def _equal(self, one: str, other: str) -> bool:
        if self.tensors[one].shape != self.tensors[other].shape:
            return False
        return bool(self.tensor(one).float().equal(self.tensor(other).float()))

    @abstractmethod
    def tensor(self, name: str) -> Tensor:
        """Return a tensor; do not write to it."""

    def makes(self, name: str) -> bool:
        """Return whether ``tensor`` computes this one anew whenever it is asked for."""
        return False

    @abstractmethod
    def expect(self, name: str) -> None:
        """Hear that a tensor is needed soon."""

    @property
    def mapped(self) -> bool:
        """Whether several threads may read tensors at once: all are pages of its files."""
        return False

    def let_go(self) -> None:  # noqa: B027
        """Hear that no tensor of before is needed soon: its files' pages leave this process."""


class Changed(Parent):
    """A parent that has all of another one, but for what a subclass changes."""

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self.reference, self.located = parent.reference, parent.located
        self.folder, self.config = parent.folder, parent.config
        self.architecture, self.tensors = parent.architecture, parent.tensors
        self.left_out = parent.left_out

    @property
    def sums(self) -> Mapping[str, int]:
        """Those of the parent as stored, see ``Parent``."""
        return self._parent.sums

    def makes(self, name: str) -> bool:
        """See ``Parent``."""
        return self._parent.makes(name)

    def expect(self, name: str) -> None:
        """See ``Parent``; what the change needs beside the parent's tensor is small."""
        self._parent.expect(name)

    @property
    def mapped(self) -> bool:
        """See ``Parent``."""
        return self._parent.mapped

    def let_go(self) -> None:
        """See ``Parent``."""
        self._parent.let_go()

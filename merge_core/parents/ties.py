"""Parents that tie their head to their embedding, beside parents that do not.

A class ties tensors as its config says; transformers unties two that are stored with different
values. So whether a result has two tensors or one is decided by what all its parents store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from merge_core.architecture import edit_config, model_class
from merge_core.contract import Tensor
from merge_core.parents.protocol import Changed, Parent


def aligned(parents: Mapping[str, Parent], used: Iterable[str]) -> dict[str, Parent]:
    """Return parents that all have two tensors where one of those used has two.

    Args:
        parents: By their references.
        used: References of those that the result is made of, its config included.
    """
    taken = [parents[name] for name in dict.fromkeys(used)]
    tied = {name for parent in taken for name in parent.architecture.tied}
    apart = {name for parent in taken for name in parent.apart}
    for parent in taken:
        apart |= {name for name in tied - parent.architecture.tied.keys() if name in parent.tensors}
    return {
        name: untied(parent, apart) if apart or parent in taken else parent
        for name, parent in parents.items()
    }


def untied(parent: Parent, apart: Iterable[str]) -> Parent:
    """Return a parent that has ``apart`` as tensors of their own; the same object at each call.

    Of others that its class ties, the one has the weights from which the class takes them.
    """
    facts = parent.architecture
    names = frozenset(apart).intersection(facts.tied)
    sources = {*facts.tied.values()} - parent.tensors.keys()
    if not names and not sources:
        return parent
    if names not in parent.views:
        parent.views[names] = Untied(parent, names)
    return parent.views[names]


class Untied(Changed):
    """A parent some of whose tied tensors are tensors of their own: twins of what it stores.

    Args:
        parent: The parent; ``digest`` stays that of its files.
        apart: Names that its class ties to others.
    """

    def __init__(self, parent: Parent, apart: frozenset[str]) -> None:
        super().__init__(parent)
        before = parent.architecture
        self.config = edit_config.untied(parent.config, apart)
        facts = model_class.read(self.config, parent.reference)
        tied = {a: b for a, b in facts.tied.items() if a not in apart}
        self.architecture = replace(facts, tied=tied)
        groups: dict[str, list[str]] = {}
        for name, source in before.tied.items():
            groups.setdefault(source, [source]).append(name)
        self._twins = {
            name: next(x for x in group if x in parent.tensors)
            for group in groups.values()
            for name in group
            if name not in parent.tensors
            and name not in tied
            and any(x in parent.tensors for x in group)
        }
        self.tensors = {
            **parent.tensors,
            **{name: parent.tensors[twin] for name, twin in self._twins.items()},
        }

    def tensor(self, name: str) -> Tensor:
        """Return a tensor; do not write to it."""
        return self._parent.tensor(self._twins.get(name, name))

    def expect(self, name: str) -> None:
        """See ``Parent``."""
        self._parent.expect(self._twins.get(name, name))

    def makes(self, name: str) -> bool:
        """See ``Parent``."""
        return self._parent.makes(self._twins.get(name, name))

    @property
    def digest(self) -> str:
        """SHA-256 of all weights of the parent as stored."""
        return self._parent.digest

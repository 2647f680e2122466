"""A parent with rows for another vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from merge_core.architecture import edit_config, model_class
from merge_core.contract import Tensor
from merge_core.numerics.exact_sums import RUN
from merge_core.parents.protocol import Changed, Parent
from merge_core.transplant.sources import Source

TOKENS = 2**12  # whose rows are added up at a time


class Transplanted(Changed):
    """A parent whose vocabulary-indexed tensors have the rows that ``sources`` say.

    Rows that are taken are the parent's, to the bit; means are computed in float32, that of all
    in float64, and rounded to the type that the parent stores.

    Args:
        parent: The model; ``digest`` stays that of its files.
        sources: Where each new row comes from.
        tokens: Rows of the parent that have a token: those that the mean is over.
        special: The config's ids of special tokens.
    """

    def __init__(
        self,
        parent: Parent,
        sources: Sequence[Source],
        tokens: Sequence[int],
        special: Mapping[str, Any],
    ) -> None:
        super().__init__(parent)
        self._sources, self._tokens = sources, tokens
        self.indexed = parent.tensors.keys() & parent.architecture.vocabulary
        self.tensors = {**parent.tensors}
        for name in self.indexed:
            info = parent.tensors[name]
            self.tensors[name] = replace(info, shape=(len(sources), *info.shape[1:]))
        known = {key: x for key, x in special.items() if x is not None or key in parent.config}
        self.config = {**edit_config.with_vocabulary(parent.config, len(sources)), **known}
        self.architecture = model_class.read(self.config, parent.where, len(self.tensors))

    def tensor(self, name: str) -> Tensor:
        """Return a tensor with the new rows, or as the parent has it; do not write to it."""
        stored = self._parent.tensor(name)
        return self._rows(stored) if name in self.indexed else stored

    def makes(self, name: str) -> bool:
        """See ``Parent``."""
        return name in self.indexed or super().makes(name)

    @property
    def digest(self) -> str:
        """SHA-256 of all weights of the parent as stored."""
        return self._parent.digest

    def _rows(self, stored: Tensor) -> Tensor:
        import torch

        made = torch.empty((len(self._sources), *stored.shape[1:]), dtype=stored.dtype)
        mean = [i for i, source in enumerate(self._sources) if not source.rows]
        if mean:
            made[mean] = self._mean(stored).to(stored.dtype)
        for places, rows, owners, counts in self._groups:
            total = torch.zeros((len(places), *stored.shape[1:]))
            total.index_add_(0, owners, stored[rows].float())
            total /= counts.reshape(-1, *[1] * (stored.ndim - 1))
            made[places] = total.to(stored.dtype)
        return made

    def _mean(self, stored: Tensor) -> Tensor:
        import torch

        total = torch.zeros(stored.shape[1:], dtype=torch.float64)
        step = max(1, RUN // max(1, total.numel()))  # in runs that torch does not split
        for i in range(0, len(self._tokens), step):
            total += stored[[*self._tokens[i : i + step]]].double().sum(0)
        return total / max(1, len(self._tokens))

    @cached_property
    def _groups(self) -> list[tuple[list[int], Tensor, Tensor, Tensor]]:
        """Places in the result, rows, which of the places each row goes to, how many each has."""
        import torch

        found = []
        for places in self._taken():
            rows = [self._sources[i].rows for i in places]
            owners = [j for j, own in enumerate(rows) for _ in own]
            flat = [row for own in rows for row in own]
            counts = torch.tensor([len(own) for own in rows], dtype=torch.float32)
            found.append((places, torch.tensor(flat), torch.tensor(owners), counts))
        return found

    def _taken(self) -> Iterator[list[int]]:
        places = [i for i, source in enumerate(self._sources) if source.rows]
        yield from (places[i : i + TOKENS] for i in range(0, len(places), TOKENS))

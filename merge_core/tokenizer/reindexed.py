"""A parent with the rows of another vocabulary; see ``vocabulary`` for rows and donors.

own      (size,) int64, for every row of the result the parent's own row, or -1
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from merge_core.contract import Tensor
from merge_core.errors import CheckpointError, ShapeError
from merge_core.numerics.exact_sums import RUN
from merge_core.parents.protocol import Changed, Parent

Donors = tuple[tuple[str, int], ...]


class Reindexed(Changed):
    """A parent whose vocabulary-indexed tensors have the rows of another vocabulary.

    ``tensors`` tells the new shapes with the stored types; ``tensor`` gives float32 where rows are
    means or come from a parent of another type. ``config`` is the parent's, so its ``vocab_size``
    is the old one.

    Args:
        parent: The parent; its ``digest`` stays that of its files.
        indexed: The tensors that are re-indexed, whose first axis counts tokens.
        own: For every new row the parent's own, or -1.
        donors: New row without an own one -> the rows whose mean it is; none stand for zeros. Rows
            that are in neither are padding, and get the mean of all others.
        parents: Every model that gives rows.

    Raises:
        CheckpointError: A model that gives rows lacks a tensor that ``parent`` has.
        ShapeError: Its rows have another shape.
    """

    def __init__(
        self,
        parent: Parent,
        indexed: Collection[str],
        own: Sequence[int],
        donors: Mapping[int, Donors],
        parents: Mapping[str, Parent],
    ) -> None:
        super().__init__(parent)
        self._donors, self._own, self._parents = donors, own, parents
        self.tensors, self._indexed = {**parent.tensors}, parent.tensors.keys() & {*indexed}
        for name in sorted(self._indexed):
            self._check_donors(name)
            info = parent.tensors[name]
            self.tensors[name] = replace(info, shape=(len(own), *info.shape[1:]))

    def tensor(self, name: str) -> Tensor:
        """Return a tensor with the rows of the new vocabulary, or as stored; do not write to it."""
        stored = self._parent.tensor(name)
        if name not in self._indexed or list(self._own) == list(range(len(stored))):
            return stored
        return self._rows(name, stored)

    def makes(self, name: str) -> bool:
        """See ``Parent``."""
        return name in self._indexed or super().makes(name)

    @property
    def digest(self) -> str:
        """SHA-256 of all weights of the parent as stored."""
        return self._parent.digest

    def _rows(self, name: str, stored: Tensor) -> Tensor:
        import torch

        own = torch.tensor(self._own)
        mine = own >= 0
        dtype = stored.dtype if self._keeps_type(name) else torch.float32
        rows = torch.zeros((len(own), *stored.shape[1:]), dtype=dtype)
        rows[mine] = stored[own[mine]].to(dtype)
        for model, pairs in self._by_model().items():
            there, here = torch.tensor(pairs).unbind(1)
            rows[here] += self._parents[model].tensor(name)[there].to(dtype)
        counts = {row: len(donors) for row, donors in self._donors.items() if len(donors) > 1}
        if counts:
            rows[list(counts)] /= torch.tensor(list(counts.values())).reshape(
                -1, *[1] * (rows.ndim - 1)
            )
        padded = ~mine
        padded[list(self._donors)] = False
        if padded.any():
            rows[padded] = (_total(rows) / int((~padded).sum())).float()  # padding is zero so far
        return rows

    def _by_model(self) -> dict[str, list[tuple[int, int]]]:
        """Return model -> (row there, row here) pairs, models in the order of the donors."""
        pairs: dict[str, list[tuple[int, int]]] = {}
        for row, donors in self._donors.items():
            for model, there in donors:
                pairs.setdefault(model, []).append((there, row))
        return pairs

    def _keeps_type(self, name: str) -> bool:
        if any(len(donors) > 1 for donors in self._donors.values()):
            return False
        if sum(i >= 0 for i in self._own) + len(self._donors) < len(self._own):
            return False  # padding is a mean
        types = {self._parents[model].tensors[name].dtype for model in self._by_model()}
        return types <= {self._parent.tensors[name].dtype}

    def _check_donors(self, name: str) -> None:
        shape = self._parent.tensors[name].shape[1:]
        for model in self._by_model():
            if name not in self._parents[model].tensors:
                raise CheckpointError(
                    f"{name}: {self.reference} has it and needs rows of it from {model}, which "
                    f"does not have it; the parents must share one architecture"
                )
            other = self._parents[model].tensors[name].shape[1:]
            if other != shape:
                raise ShapeError(
                    f"{name}: a row of {self.reference} is {shape}, one of {model} {other}; the "
                    f"parents must have the same shapes but for their vocabulary"
                )


def _total(rows: Tensor) -> Tensor:
    """Sum ``(n, *shape)`` float32 over n in float64, in runs that torch does not split."""
    import torch

    total = torch.zeros(rows.shape[1:], dtype=torch.float64)
    step = max(1, RUN // max(1, total.numel()))
    for i in range(0, len(rows), step):
        total += rows[i : i + step].double().sum(0)
    return total

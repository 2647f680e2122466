"""An expert with noise on its weights, so that copies of one model can part in training."""

from __future__ import annotations

from collections.abc import Mapping

from merge_core.contract import Tensor
from merge_core.numerics.bernoulli import key_for
from merge_core.parents.protocol import Changed, Parent


def with_noise(parent: Parent, scale: float, seed: int, names: Mapping[str, str]) -> Parent:
    """Return a parent with noise; the same object for the same noise. See ``Noisy``."""
    key = frozenset({f"noise {scale!r} {seed}", *names.values()})
    if key not in parent.views:
        parent.views[key] = Noisy(parent, scale, seed, names)
    return parent.views[key]


class Noisy(Changed):
    """A parent that adds independent normal numbers to some of its tensors.

    The numbers are those of the recipe's seed and of the tensor's name in the result, so two
    experts of one model get different ones, and each candidate the same.

    Args:
        parent: The parent.
        scale: Their standard deviation.
        seed: The recipe's.
        names: Its tensor -> the name in the result.
    """

    def __init__(self, parent: Parent, scale: float, seed: int, names: Mapping[str, str]) -> None:
        super().__init__(parent)
        self._scale, self._seed, self._names = scale, seed, names

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, in float32 where there is noise on it."""
        import torch

        found = self._parent.tensor(name)
        if name not in self._names:
            return found
        key = key_for(self._seed, self._names[name], "noise")
        stream = torch.Generator().manual_seed(key >> 1)
        noise = torch.randn(found.shape, generator=stream).to(found.device)
        return found.float().add(noise, alpha=self._scale)

    def makes(self, name: str) -> bool:
        """See ``Parent``."""
        return name in self._names or super().makes(name)

"""The dropout of DARE: each entry of a task vector stays with the same probability."""

from __future__ import annotations

from merge_core.contract import Block, Inputs, Prepared, Tensor
from merge_core.methods.shared.sparsify.rule import Rule
from merge_core.numerics.bernoulli import coins, highest, kept, split


def drop_at_random(delta: Tensor, density: float, key: int) -> Tensor:
    """Return ``m * delta`` with ``m ~ Bernoulli(density)`` for each entry.

    ``delta``: ``(*shape)`` float32; ``density``: in [0, 1].

    Source: DARE, arXiv:2311.03099, equation 1; there the drop rate is ``1 - density``.
    """
    return delta * kept(key, density, delta.numel()).view_as(delta)


def words(inputs: Inputs) -> dict[str, list[int]]:
    """Return start and step of every model's coins."""
    pairs = [split(key) for key in inputs.keys]
    return {"start": [start for start, _ in pairs], "step": [step for _, step in pairs]}


def flipped(block: Block, i: int) -> Tensor:
    """Return the coins of model ``i``, int32."""
    assert block.places is not None
    return coins(block.places, block.words["start"][i], block.words["step"][i])


def _find(inputs: Inputs) -> Prepared:
    ends = [highest(density) for density in inputs.numbers("density")]
    return Prepared(words={**words(inputs), "highest": ends})


def _drops(block: Block, i: int, delta: Tensor) -> Tensor:
    return flipped(block, i) > block.words["highest"][i]


BERNOULLI = Rule("coins", _find, _drops)

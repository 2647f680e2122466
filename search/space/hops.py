"""Hops of a layer path <-> a recipe's slices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from merge_core.errors import MergeError
from merge_core.recipe.schema import Recipe

Layer = tuple[str, int]


class Hop(NamedTuple):
    """One step of a path: a model, its layer, and the factor of what goes into it."""

    model: str
    layer: int
    scale: float = 1.0

    @property
    def of(self) -> Layer:
        """Model and layer."""
        return self.model, self.layer


def slices(hops: Sequence[Hop]) -> list[dict[str, Any]]:
    """Return a path as a recipe's ``slices``.

    Neighbouring layers of one model are one ``layer_range``, where nothing is multiplied between.
    """
    found: list[dict[str, Any]] = []
    before: Hop | None = None
    for hop in hops:
        follows = before is not None and hop.of == (before.model, before.layer + 1)
        if follows and hop.scale == 1:
            found[-1]["sources"][0]["layer_range"][1] += 1
        else:
            source = {"model": hop.model, "layer_range": [hop.layer, hop.layer + 1]}
            found.append(
                {"sources": [source]} | ({"input_scale": hop.scale} if hop.scale != 1 else {})
            )
        before = hop
    return found


def hops_of(recipe: Recipe) -> list[Hop]:
    """Return the path that a recipe's slices are.

    Raises:
        MergeError: They are none.
    """
    found: list[Hop] = []
    for one in recipe.slices:
        if len(one.sources) != 1 or one.sources[0].layer_range is None:
            raise MergeError("a path has one model in each slice, with a layer_range")
        model, (first, end) = one.sources[0].model, one.sources[0].layer_range
        inside = [Hop(model, i) for i in range(first, end)]
        found += [inside[0]._replace(scale=one.input_scale), *inside[1:]]
    if not found:
        raise MergeError("the study searches layer paths, this recipe has no slices")
    return found


def shown(hops: Iterable[Hop]) -> str:
    """Return hops in words."""
    return ", ".join(f"{hop.model}:{hop.layer}" for hop in hops) or "none"

"""Rows of hops and of flags among a space's knobs, and the moves that change a row.

A row of hops are the choices ``X/hop 1``, ``X/hop 2``, ..., each of the same layers or ``none``,
with factors ``X/scale 1``, ... where there are some; read without the places that are ``none``, it
is a sequence of genes. A row of flags are the choices between true and false ``X/1/a:0``, ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

from search.samplers.cube import Cube
from search.samplers.registry import Space

NONE = "none"
_HOP = re.compile(r"(.+)/hop (\d+)")
_LAYER = re.compile(r".*:\d+")
_FLAG = re.compile(r"(.+)/\d+/.+:\d+")
Random = np.random.RandomState


class Gene(NamedTuple):
    """A layer, called ``model:7``, and the factor of what goes into it; None where it has none."""

    layer: str
    scale: float | None = None


Genes = list[Gene]


@dataclass(frozen=True)
class Hops:
    """A row of hops.

    Args:
        hops: Names of the choices, in order.
        scales: Name of a hop -> that of its factor.
        layers: What a hop may be, without ``none``.
        usual: Factor of a layer that is new in a row.
    """

    hops: tuple[str, ...]
    scales: Mapping[str, str]
    layers: tuple[str, ...]
    usual: float | None

    @property
    def names(self) -> frozenset[str]:
        """Names of all knobs of the row."""
        return frozenset({*self.hops, *self.scales.values()})

    def read(self, point: Mapping[str, Any]) -> Genes:
        """Return the genes of a point."""
        there = [hop for hop in self.hops if point[hop] != NONE]
        return [
            Gene(point[hop], point.get(self.scales[hop], self.usual) if self.scales else None)
            for hop in there
        ]

    def written(self, genes: Genes) -> dict[str, Any]:
        """Return the values of genes; those that are too many are left out at the end."""
        found: dict[str, Any] = {}
        for i, hop in enumerate(self.hops):
            gene = genes[i] if i < len(genes) else Gene(NONE, self.usual)
            found[hop] = gene.layer
            if self.scales:
                found[self.scales[hop]] = gene.scale
        return found

    @cached_property
    def stacks(self) -> list[dict[int, str]]:
        """Layers by their numbers, model by model."""
        found: dict[str, dict[int, str]] = {}
        for layer in self.layers:
            model, _, number = layer.rpartition(":")
            found.setdefault(model, {})[int(number)] = layer
        return list(found.values())

    def elsewhere(self, layer: str) -> list[str]:
        """Return the layers of the same number of other models."""
        number = int(layer.rpartition(":")[2])
        there = [stack[number] for stack in self.stacks if number in stack]
        return [other for other in there if other != layer]


def rows_of_hops(space: Space) -> list[Hops]:
    """Return the rows of hops of a space; a layer that is new has a factor of 1, or near it."""
    rows: dict[str, list[str]] = {}
    for name, distribution in space.items():
        found = _HOP.fullmatch(name)
        if found and _layers(distribution):
            rows.setdefault(found[1], []).append(name)
    made = []
    for hops in rows.values():
        if any(space[hop] != space[hops[0]] for hop in hops):
            continue
        scales = {hop: hop.replace("/hop ", "/scale ") for hop in hops}
        scales = scales if set(scales.values()) <= space.keys() else {}
        factor = _nearest_to_one(space[scales[hops[0]]]) if scales else None
        made.append(Hops(tuple(hops), scales, _layers(space[hops[0]]), factor))
    return made


def _nearest_to_one(distribution: Any) -> float:
    cube = Cube({"factor": distribution})
    return float(cube.values(cube.start({"factor": 1.0}))["factor"])


def _layers(distribution: BaseDistribution) -> tuple[str, ...]:
    """Return the layers that a hop may be; none where it is no hop."""
    if not isinstance(distribution, CategoricalDistribution) or NONE not in distribution.choices:
        return ()
    others = [x for x in distribution.choices if x != NONE]
    layers = tuple(x for x in others if isinstance(x, str) and _LAYER.fullmatch(x))
    return layers if len(layers) == len(others) else ()


def rows_of_flags(space: Space) -> list[tuple[str, ...]]:
    """Return the names of the rows of flags of a space."""
    rows: dict[str, list[str]] = {}
    for name, distribution in space.items():
        found = _FLAG.fullmatch(name)
        choices = getattr(distribution, "choices", ())
        if found and set(map(repr, choices)) == {"False", "True"}:
            rows.setdefault(found[1], []).append(name)
    return [tuple(names) for names in rows.values()]


def _length(random: Random, most: int) -> int:
    """Return the length of a block: 1 for a half, 2 for a quarter, ..."""
    return min(int(random.geometric(0.5)), most)


def _block(genes: Genes, random: Random) -> tuple[int, int]:
    """Return first position and the one behind the last of a block."""
    length = _length(random, len(genes))
    first = int(random.randint(len(genes) - length + 1))
    return first, first + length


def insert(genes: Genes, row: Hops, random: Random) -> Genes:
    """Insert neighbouring layers of a model; more often such as the row does not have yet."""
    there = {gene.layer for gene in genes}
    new = [layer for layer in row.layers if layer not in there]
    layer = _one_of(new if new and random.rand() < 0.75 else row.layers, random)
    number = int(layer.rpartition(":")[2])
    stack = next(stack for stack in row.stacks if layer in stack.values())
    block = [layer]
    for i in range(number + 1, number + _length(random, 8)):
        if i not in stack:
            break
        block.append(stack[i])
    at = int(random.randint(len(genes) + 1))
    return [*genes[:at], *(Gene(x, row.usual) for x in block), *genes[at:]]


def drop(genes: Genes, row: Hops, random: Random) -> Genes:
    """Drop a block."""
    first, end = _block(genes, random)
    return [*genes[:first], *genes[end:]]


def repeat(genes: Genes, row: Hops, random: Random) -> Genes:
    """Repeat a block right behind itself."""
    first, end = _block(genes, random)
    return [*genes[:end], *genes[first:]]


def swap(genes: Genes, row: Hops, random: Random) -> Genes:
    """Swap two blocks that do not overlap."""
    if len(genes) < 2:
        return genes
    a, b, c, d = 0, 0, 0, 0
    while not a < b <= c < d:
        (a, b), (c, d) = sorted((_block(genes, random), _block(genes, random)))
    return [*genes[:a], *genes[c:d], *genes[b:c], *genes[a:b], *genes[d:]]


def move(genes: Genes, row: Hops, random: Random) -> Genes:
    """Move a block to another place."""
    first, end = _block(genes, random)
    rest = [*genes[:first], *genes[end:]]
    at = int(random.randint(len(rest) + 1))
    return [*rest[:at], *genes[first:end], *rest[at:]]


def replace(genes: Genes, row: Hops, random: Random) -> Genes:
    """Replace a layer by that of the same number of another model, or by any other."""
    at = int(random.randint(len(genes)))
    others = row.elsewhere(genes[at].layer)
    layer = _one_of(others if others and random.rand() < 0.5 else row.layers, random)
    return [*genes[:at], genes[at]._replace(layer=layer), *genes[at + 1 :]]


def crossed(genes: Genes, other: Genes, random: Random) -> Genes:
    """Return the one row up to a cut and the other from a cut near it."""
    cut = int(random.randint(len(genes) + 1))
    there = cut + int(random.randint(-1, 2)) if random.rand() < 0.5 else cut
    return [*genes[:cut], *other[max(0, there) :]]


Move = Callable[[Genes, Hops, Random], Genes]
MOVES: Sequence[tuple[Move, float]] = (
    (insert, 0.2),
    (drop, 0.1),
    (repeat, 0.1),
    (swap, 0.2),
    (move, 0.3),
    (replace, 0.1),
)


def moved(genes: Genes, row: Hops, random: Random) -> Genes:
    """Return a row after one move."""
    if not genes:
        return insert(genes, row, random)
    kind, _ = MOVES[int(random.choice(len(MOVES), p=[share for _, share in MOVES]))]
    return kind(genes, row, random)


def _one_of(layers: Sequence[str], random: Random) -> str:
    return layers[int(random.randint(len(layers)))]

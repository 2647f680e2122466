"""Which items are not independent of each other: groups from labels that items share."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

L = TypeVar("L", bound=Hashable)


def content(id_: str) -> str:
    """Return what an item's id says of its content: twins are ``X``, ``X#2``, ``X#3``, ..."""
    return id_.partition("#")[0]


def united(labels: Sequence[L], *others: Sequence[Hashable]) -> tuple[L, ...]:
    """Return one label per item, the same for items that any chain of shared labels joins.

    Each listing has one label per item; labels of different listings have nothing to do with each
    other. A group has its least label of the first listing, so it does not depend on the order.

    Raises:
        ValueError: The listings are of different lengths.
    """
    above: dict[tuple[int, Hashable], tuple[int, Hashable]] = {}

    def top(node: tuple[int, Hashable]) -> tuple[int, Hashable]:
        while (over := above.setdefault(node, node)) != node:
            above[node] = above[over]
            node = over
        return node

    for first, *rest in zip(labels, *others, strict=True):
        for listing, label in enumerate(rest, start=1):
            above[top((listing, label))] = top((0, first))
    least: dict[Hashable, L] = {}
    for label in sorted(set(labels), reverse=True):  # type: ignore[type-var]
        least[top((0, label))] = label
    return tuple(least[top((0, label))] for label in labels)

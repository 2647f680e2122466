"""Which layers matter, as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from search.run.inspect_layers import LayersFound
from search.views.tables import table
from search.views.terminal import OUT

if TYPE_CHECKING:
    from evaluators.engines.hf.residual_stream import LayerDistances

LAYERS = ("layer", "angular distance", "block influence")
BLOCKS = ("layers", "where it is missed least", "angular distance")


def show(found: LayersFound) -> None:
    """Print, for each model, its layers, and the block of each size that it misses least."""
    for name, one in found.models.items():
        _print(name, one, found.texts)


def _print(name: str, one: LayerDistances, texts: str) -> None:
    OUT.print(
        f"{name}: {one.texts} texts with {one.tokens:,} tokens ({texts}); angular distance of the "
        "residual stream at the last token, in [0, 1]; block influence over all tokens",
        soft_wrap=True,
    )
    rows = zip(one.angular[0], one.influence, strict=True)
    cells = [(str(i), f"{d:.4f}", f"{b:.4f}") for i, (d, b) in enumerate(rows)]
    OUT.print(_right(table("what each layer does to the stream", LAYERS, cells)))
    blocks = [(str(n), *_block(one, n)) for n in range(1, one.layers)]
    if blocks:
        OUT.print(_right(table("blocks to cut", BLOCKS, blocks)))
        OUT.print(sentence(name, one), soft_wrap=True)


def sentence(name: str, one: LayerDistances) -> str:
    """Return in words what to cut first, for a quarter of at least two layers."""
    size = max(1, one.layers // 4)
    where, distance = _block(one, size)
    many = "layers" if size > 1 else "layer"
    return (
        f"{name}: of all blocks of {size}, dropping {many} {where} changes the stream least "
        f"(angular distance {distance})"
    )


def _right(made: Table) -> Table:
    for column in made.columns:
        column.justify = "right"
    return made


def _block(one: LayerDistances, size: int) -> tuple[str, str]:
    first = one.best(size)
    where = str(first) if size == 1 else f"{first} to {first + size - 1}"
    return where, f"{one.angular[size - 1][first]:.4f}"

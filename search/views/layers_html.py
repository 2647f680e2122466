"""Which layers matter, as one web page: for each model blocks of layers by size and first layer."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from search.run.inspect_layers import LayersFound
from search.views.inspection_html import BLUE, DARK, PAGE, STYLE, WHITE, Scale
from search.views.layers_table import sentence

if TYPE_CHECKING:
    from evaluators.engines.hf.residual_stream import LayerDistances

TITLE = "Which layers matter: angular distance across blocks of layers"
WORDS = "angular distance of the residual stream, one scale for all models; 0: nothing is turned"
BEST = "outline: 2px solid #b2182b; outline-offset: -2px"


def page(found: LayersFound) -> str:
    """Return the page, well-formed as XML too."""
    most = max(max(row) for one in found.models.values() for row in one.angular)
    scale = Scale(0.0, most, (WHITE, BLUE, DARK))
    maps = [_map(name, one, scale) for name, one in found.models.items()]
    facts = (
        f"measured on {found.texts}; rows: layers in a block; columns: its first layer; framed: "
    )
    body = "\n".join([scale.legend(WORDS), "<section>", *maps, "</section>"])
    return PAGE.format(
        title=escape(TITLE), style=STYLE, facts=escape(f"{facts}the least of a row"), body=body
    )


def _map(name: str, one: LayerDistances, scale: Scale) -> str:
    head = "".join(f"<th>{i}</th>" for i in range(one.layers))
    lines = [_line(one, size, scale) for size in range(1, one.layers + 1)]
    influence = "".join(
        f'<td title="layer {i}: block influence {x:.4g}">{x:.2f}</td>'
        for i, x in enumerate(one.influence)
    )
    said = f"<p>{escape(sentence(name, one))}</p>" if one.layers > 1 else ""
    return (
        f"<figure><figcaption>{escape(name)}</figcaption>{said}<table>"
        f"<thead><tr><td></td>{head}</tr></thead>\n<tbody>{''.join(lines)}"
        f"<tr><th>block influence</th>{influence}</tr></tbody></table></figure>"
    )


def _line(one: LayerDistances, size: int, scale: Scale) -> str:
    row, best = one.angular[size - 1], one.best(size)
    cells = []
    for i, value in enumerate(row):
        look = f"background:{scale.colour(value)}" + (f"; {BEST}" if i == best else "")
        layers = f"layer {i}" if size == 1 else f"layers {i} to {i + size - 1}"
        cells.append(f'<td style="{look}" title="{layers}: {value:.4g}"></td>')
    empty = "<td></td>" * (one.layers - len(row))
    return f"<tr><th>{size}</th>{''.join(cells)}{empty}</tr>\n"

"""An inspection as one web page: layers down, modules across, a colour for every number.

Table cells with tooltips, no script and nothing from elsewhere, so the file can be mailed or kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from merge_core.inspect.report import Inspection, Measured, Pair, Row

STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fff; }
h2 { margin-top: 2em; }
section { display: flex; flex-wrap: wrap; gap: 2em; align-items: flex-end; }
figure { margin: 0; overflow-x: auto; }
figcaption { font-weight: 600; margin-bottom: .5em; }
table { border-collapse: separate; border-spacing: 1px; }
th { font-weight: 400; font-size: 12px; text-align: right; padding: 0 .5em; white-space: nowrap; }
thead th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; }
thead th { padding: .5em 0; }
td { min-width: 22px; height: 16px; padding: 0; }
td.none { background: repeating-linear-gradient(45deg, #ddd 0 2px, #fff 2px 5px); }
.legend { display: flex; align-items: center; gap: .5em; margin: .5em 0 1em; }
.bar { display: flex; } .bar i { width: 10px; height: 14px; }
"""
Colour = tuple[int, int, int]
WHITE, DARK, BLUE, RED = (247, 247, 247), (8, 48, 107), (33, 102, 172), (178, 24, 43)
SWATCHES = 24


@dataclass(frozen=True)
class Scale:
    """Numbers to colours.

    Args:
        low: Has the first colour.
        high: Has the last colour.
        colours: Spread evenly between them.
    """

    low: float
    high: float
    colours: tuple[Colour, ...]

    def colour(self, value: float) -> str:
        """Return ``#rrggbb``; numbers past an end have the colour of the end."""
        span = self.high - self.low
        share = min(1.0, max(0.0, (value - self.low) / span)) if span > 0 else 0.0
        at = share * (len(self.colours) - 1)
        i = min(int(at), len(self.colours) - 2)
        mixed = (
            round(a + (b - a) * (at - i))
            for a, b in zip(self.colours[i], self.colours[i + 1], strict=True)
        )
        return "#" + "".join(f"{x:02x}" for x in mixed)

    def legend(self, words: str) -> str:
        """Return a bar of colours with its ends; ``words`` say what is shown."""
        span = self.high - self.low
        values = [self.low + span * i / (SWATCHES - 1) for i in range(SWATCHES)]
        bar = "".join(f'<i style="background:{self.colour(x)}"></i>' for x in values)
        ends = f'<span>{self.low:.4g}</span><span class="bar">{bar}</span><span>{self.high:.4g}'
        return f'<div class="legend">{ends}</span><span>{escape(words)}</span></div>'


Shown = tuple[float | None, str]  # a number and what its tooltip says
Numbers = Callable[[Row], Shown | None]  # None where a row has nothing of the kind


def page(found: Inspection) -> str:
    """Return the page, well-formed as XML too."""
    title = escape(f"{found.merge_method}: task vectors measured from {_listed(found)}")
    facts = (
        f"recipe digest {found.recipe_digest}; {found.parameters:,} parameters in {found.dtype}; "
        f"whatever is hatched is not defined; point at a cell to read its numbers"
    )
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="en"><head><meta charset="utf-8"/><title>{title}</title>',
            f"<style>{STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            f"<p>{escape(facts)}</p>",
            *_norms(found),
            *_pairs(found),
            "</body></html>\n",
        ]
    )


def _listed(found: Inspection) -> str:
    return ", ".join(found.measured_from)


def _norms(found: Inspection) -> Iterator[str]:
    if not found.models:
        yield "<p>Every place of the result has one model: there are no task vectors.</p>"
        return
    seen = [one.relative or 0.0 for row in found.rows for one in row.models]
    scale = Scale(0.0, max(seen, default=0.0), (WHITE, BLUE, DARK))
    yield "<h2>Norm of the task vectors, relative to the norm of what they are measured from</h2>"
    yield scale.legend("relative norm, one scale for all models")
    yield "<section>"
    names = found.short_names()
    for model in found.models:
        yield _map(found, f"{names[model]}: relative norm", scale, _of_model(model))
    yield "</section>"


@dataclass(frozen=True)
class _Kind:
    """One number of a pair, and how it is shown."""

    what: str
    words: str
    scale: Scale
    number: Callable[[Pair], float | None]


KINDS = (
    _Kind(
        "cosine",
        "1 the same direction, 0 orthogonal, -1 opposite",
        Scale(-1.0, 1.0, (BLUE, WHITE, RED)),
        lambda pair: pair.cosine,
    ),
    _Kind(
        "sign disagreement",
        "share of other signs where both are not zero; about 0.5 for unrelated ones",
        Scale(0.0, 1.0, (BLUE, WHITE, RED)),
        lambda pair: pair.sign_disagreement,
    ),
)


def _pairs(found: Inspection) -> Iterator[str]:
    names, pairs = found.short_names(), [pair.models for pair in found.total.pairs]
    for kind in KINDS if pairs else ():
        yield f"<h2>{kind.what.capitalize()} between task vectors</h2>"
        yield kind.scale.legend(kind.words)
        yield "<section>"
        for a, b in pairs:
            title = f"{names[a]} and {names[b]}: {kind.what}"
            yield _map(found, title, kind.scale, _of_pair((a, b), kind))
        yield "</section>"


def _of_model(model: str) -> Numbers:
    def numbers(row: Row) -> Shown | None:
        one = next((x for x in row.models if x.model == model), None)
        return None if one is None else (one.relative, _told(one))

    return numbers


def _told(one: Measured) -> str:
    words = f"relative norm {_number(one.relative)}, norm {_number(one.norm)}"
    if one.kept is None:
        return words
    shares = (one.kept.entries, one.kept.l1, one.kept.squares)
    entries, l1, squares = (_number(share) for share in shares)
    return f"{words}, kept: {entries} of the entries, {l1} of L1, {squares} of the squared norm"


def _of_pair(models: tuple[str, str], kind: _Kind) -> Numbers:
    def numbers(row: Row) -> Shown | None:
        pair = next((x for x in row.pairs if x.models == models), None)
        if pair is None:
            return None
        return kind.number(pair), f"{kind.what} {_number(kind.number(pair))}"

    return numbers


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4g}"


def _map(found: Inspection, title: str, scale: Scale, numbers: Numbers) -> str:
    """Return one table: a line for every layer, and for everything outside the layers."""
    columns = list(dict.fromkeys(row.name for row in found.rows if row.layer is not None))
    lines: dict[tuple[str | None, int | None, str], dict[str, Row]] = {}
    for row in found.rows:
        key = (row.stack, row.layer, row.name if row.layer is None else "")
        lines.setdefault(key, {})[row.name] = row
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "\n".join(_line(found, cells, columns, scale, numbers) for cells in lines.values())
    return (
        f"<figure><figcaption>{escape(title)}</figcaption><table>"
        f"<thead><tr><td></td>{head}</tr></thead>\n<tbody>{body}</tbody></table></figure>"
    )


def _line(
    found: Inspection,
    rows: dict[str, Row],
    columns: Sequence[str],
    scale: Scale,
    numbers: Numbers,
) -> str:
    first = next(iter(rows.values()))
    if first.layer is None:
        cell = _cell(first, first.name, scale, numbers, max(1, len(columns)))
        return f"<tr><th>{escape(first.name)}</th>{cell}</tr>"
    layer = found.layer_name(first)
    cells = "".join(
        _cell(rows[name], f"layer {layer}, {name}", scale, numbers) if name in rows else "<td></td>"
        for name in columns
    )
    return f"<tr><th>{escape(layer)}</th>{cells}</tr>"


def _cell(row: Row, place: str, scale: Scale, numbers: Numbers, span: int = 1) -> str:
    shown = numbers(row)
    if shown is None:
        return f'<td colspan="{span}"></td>'
    value, words = shown
    look = 'class="none"' if value is None else f'style="background:{scale.colour(value)}"'
    return f'<td colspan="{span}" {look} title="{escape(f"{place}: {words}")}"></td>'

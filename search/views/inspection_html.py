"""An inspection as one web page: layers down, modules across, a colour for every number.

Table cells with tooltips, no script and nothing from elsewhere, so the file can be mailed or kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from merge_core.inspect.report import Inspection, Measured, Row

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
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><title>{title}</title>
<style>{style}</style></head><body>
<h1>{title}</h1>
<p>{facts}; whatever is hatched is not defined; point at a cell to read its numbers</p>
{body}
</body></html>
"""
Colour = tuple[int, int, int]
WHITE, DARK, BLUE, RED = (247, 247, 247), (8, 48, 107), (33, 102, 172), (178, 24, 43)
SWATCHES = 24
COSINE = "1 the same direction, 0 orthogonal, -1 opposite"
SIGNS = "share of other signs where both are not zero; about 0.5 for unrelated ones"
Cell = tuple[float | None, str]  # a number and what its tooltip says
Shown = dict[Row, Cell]  # without rows that have nothing of the kind


@dataclass(frozen=True)
class Scale:
    """Numbers to colours, which are spread evenly between the ends."""

    low: float
    high: float
    colours: tuple[Colour, ...]

    def colour(self, value: float) -> str:
        """Return ``#rrggbb``; numbers past an end have the colour of the end."""
        span = self.high - self.low
        share = min(1.0, max(0.0, (value - self.low) / span)) if span > 0 else 0.0
        at = share * (len(self.colours) - 1)
        i = min(int(at), len(self.colours) - 2)
        pairs = zip(self.colours[i], self.colours[i + 1], strict=True)
        return "#" + "".join(f"{round(a + (b - a) * (at - i)):02x}" for a, b in pairs)

    def legend(self, words: str) -> str:
        """Return a bar of colours with its ends; ``words`` say what is shown."""
        step = (self.high - self.low) / (SWATCHES - 1)
        colours = [self.colour(self.low + step * i) for i in range(SWATCHES)]
        bar = "".join(f'<i style="background:{colour}"></i>' for colour in colours)
        ends = f'<span>{self.low:.4g}</span><span class="bar">{bar}</span><span>{self.high:.4g}'
        return f'<div class="legend">{ends}</span><span>{escape(words)}</span></div>'


def page(found: Inspection) -> str:
    """Return the page, well-formed as XML too."""
    title = f"{found.merge_method}: task vectors measured from {', '.join(found.measured_from)}"
    facts = f"recipe digest {found.recipe_digest}; {found.parameters:,} parameters in {found.dtype}"
    body = "\n".join([_norms(found), *_pairs(found)])
    return PAGE.format(title=escape(title), style=STYLE, facts=escape(facts), body=body)


def _norms(found: Inspection) -> str:
    if not found.models:
        return "<p>Every place of the result has one model: there are no task vectors.</p>"
    names = found.short_names()
    seen = [(row, one) for row in found.rows for one in row.models]
    return _section(
        found,
        "Norm of the task vectors, relative to the norm of what they are measured from",
        "relative norm, one scale for all models",
        Scale(0.0, max((one.relative or 0.0 for _, one in seen), default=0.0), (WHITE, BLUE, DARK)),
        {
            f"{names[model]}: relative norm": {
                row: (one.relative, _told(one)) for row, one in seen if one.model == model
            }
            for model in found.models
        },
    )


def _pairs(found: Inspection) -> Iterator[str]:
    names = found.short_names()
    seen = [(row, pair) for row in found.rows for pair in row.pairs]
    for what, low, words in (("cosine", -1.0, COSINE), ("sign disagreement", 0.0, SIGNS)):
        titles = {
            pair.models: f"{' and '.join(names[x] for x in pair.models)}: {what}"
            for pair in found.total.pairs
        }
        maps: dict[str, Shown] = {title: {} for title in titles.values()}
        for row, pair in seen:
            number = getattr(pair, what.replace(" ", "_"))
            maps[titles[pair.models]][row] = number, f"{what} {_number(number)}"
        if maps:
            scale = Scale(low, 1.0, (BLUE, WHITE, RED))
            yield _section(found, f"{what.capitalize()} between task vectors", words, scale, maps)


def _section(
    found: Inspection, title: str, words: str, scale: Scale, maps: dict[str, Shown]
) -> str:
    tables = [_map(found, name, scale, shown) for name, shown in maps.items()]
    head = [f"<h2>{title}</h2>", scale.legend(words)]
    return "\n".join([*head, "<section>", *tables, "</section>"])


def _told(one: Measured) -> str:
    words = f"relative norm {_number(one.relative)}, norm {_number(one.norm)}"
    if one.kept is None:
        return words
    entries, l1, squares = map(_number, (one.kept.entries, one.kept.l1, one.kept.squares))
    return f"{words}, kept: {entries} of the entries, {l1} of L1, {squares} of the squared norm"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4g}"


def _map(found: Inspection, title: str, scale: Scale, shown: Shown) -> str:
    """Return one table: a line for every layer, and for everything outside the layers."""
    columns = list(dict.fromkeys(row.name for row in found.rows if row.layer is not None))
    lines: dict[tuple[str | None, int | None, str], dict[str, Row]] = {}
    for row in found.rows:
        key = (row.stack, row.layer, row.name if row.layer is None else "")
        lines.setdefault(key, {})[row.name] = row
    made = []
    for rows in lines.values():
        first = next(iter(rows.values()))
        if first.layer is None:
            name = first.name
            cells = _cell(scale, shown.get(first), name, f' colspan="{max(1, len(columns))}"')
        else:
            name = found.layer_name(first)
            here = {module: shown.get(row) for module, row in rows.items()}
            cells = "".join(_cell(scale, here.get(x), f"layer {name}, {x}") for x in columns)
        made.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    head, body = "".join(f"<th>{escape(name)}</th>" for name in columns), "\n".join(made)
    return (
        f"<figure><figcaption>{escape(title)}</figcaption><table>"
        f"<thead><tr><td></td>{head}</tr></thead>\n<tbody>{body}</tbody></table></figure>"
    )


def _cell(scale: Scale, cell: Cell | None, place: str, span: str = "") -> str:
    if cell is None:
        return f"<td{span}></td>"
    value, words = cell
    look = 'class="none"' if value is None else f'style="background:{scale.colour(value)}"'
    return f'<td{span} {look} title="{escape(f"{place}: {words}")}"></td>'

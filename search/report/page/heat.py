"""Heat maps of knobs over depth: layers down, modules across; winner, and mean of the finalists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from merge_core.recipe.schema import Recipe
from search.report.page.depth import Map, maps
from search.report.page.html import Html, element, note
from search.report.page.numbers import knob
from search.report.page.style import SHADES


class Shades:
    """Numbers to classes of colour; where some are negative 0 has the colour of nothing."""

    def __init__(self, values: Sequence[float]) -> None:
        low, high = min(values), max(values)
        if low < 0:
            most = max(-low, high)
            low, high = -most, most
        elif low < 0.5 * high or low == high:
            low = 0.0
        self.low, self.high, self._letter = low, high, "d" if low < 0 else "h"

    def of(self, value: float) -> str:
        """Return the class of a number."""
        span = self.high - self.low
        share = (value - self.low) / span if span > 0 and math.isfinite(value) else 0.0
        return f"{self._letter}{round(SHADES * min(1.0, max(0.0, share)))}"

    def legend(self, words: str) -> Html:
        """Return the scale with its ends."""
        bar = [element("i", class_=f"{self._letter}{i}") for i in range(SHADES + 1)]
        return element(
            "div",
            element("span", knob(self.low)),
            element("span", *bar, class_="bar"),
            element("span", knob(self.high)),
            element("span", words),
            class_="scale",
        )


def over_depth(winner: Recipe, others: Sequence[Recipe]) -> Html | None:
    """Return the heat maps of a recipe's parameters that vary over depth, or None.

    Args:
        winner: The recipe.
        others: Those of the finalists, itself included; what is made otherwise is left out.
    """
    own = [one for one in maps(winner) if one.varies]
    if not own:
        return None
    alike = [found for recipe in others if (found := _alike(recipe, own)) is not None]
    parts: list[Html] = []
    for name in dict.fromkeys((one.part, one.parameter) for one in own):
        group = [one for one in own if (one.part, one.parameter) == name]
        means = {one.key: mean(one, [found[one.key] for found in alike]) for one in group}
        shades = Shades([x for one in (*group, *means.values()) for x in one.values()])
        title = " / ".join(x for x in name if x)
        parts += [shades.legend(title), *_rows(group, means, len(alike), shades)]
    return element("div", *parts, class_="over")


def _rows(
    group: Sequence[Map], means: Mapping[tuple[str, str, str], Map], count: int, shades: Shades
) -> list[Html]:
    """Return the tables of the winner, and those of the mean where there are several finalists."""
    shown = {"Winner": list(group)}
    if count > 1:
        shown[f"Mean of {count} finalists"] = [means[one.key] for one in group]
    together = _together(group)
    made = []
    for title, found in shown.items():
        grids = [_side_by_side(found)] if together else [_grid(one) for one in found]
        tables = [element("div", x.html(shades), class_="scroll", tabindex="0") for x in grids]
        made.append(element("div", element("h4", title), element("div", *tables, class_="maps")))
    return [element("div", *made, class_="maps")] if together else made


def _together(group: Sequence[Map]) -> bool:
    """Return whether each model has one number a layer, so that models can be the columns."""
    outside = group[0].outside.keys()
    alike = all(len(one.columns) == 1 and one.outside.keys() == outside for one in group)
    return alike and len(group) > 1


def _alike(recipe: Recipe, own: Sequence[Map]) -> dict[tuple[str, str, str], Map] | None:
    """Return a recipe's maps by their keys, or None where they are of other places than these."""
    found = {one.key: one for one in maps(recipe)}
    same = all(
        one.key in found
        and _places(found[one.key]) == _places(one)
        and found[one.key].outside.keys() == one.outside.keys()
        for one in own
    )
    return found if same else None


def _places(one: Map) -> dict[str, set[int]]:
    return {column: set(cells) for column, cells in one.columns.items()}


def mean(one: Map, others: Sequence[Map]) -> Map:
    """Return the mean of maps that have the same places as this one."""
    columns = {
        name: {i: fmean(x.columns[name][i] for x in others) for i in cells}
        for name, cells in one.columns.items()
    }
    outside = {name: fmean(x.outside[name] for x in others) for name in one.outside}
    return Map(one.part, one.parameter, one.model, columns, outside)


Line = tuple[str, list[tuple[str, "float | None"]]]  # title; place and value of each cell


@dataclass(frozen=True)
class _Grid:
    """A table of colours: lines with one cell for each column, or with one for all of them."""

    title: str
    columns: list[str]
    lines: list[Line]

    def html(self, shades: Shades) -> Html:
        head = element("tr", element("td"), *(element("th", name) for name in self.columns))
        body = [
            element(
                "tr", element("th", title), *(self._cell(*x, len(cells), shades) for x in cells)
            )
            for title, cells in self.lines
        ]
        caption = element("caption", self.title) if self.title else None
        head = element("thead", head)
        return element("table", caption, head, element("tbody", *body), class_="heat")

    def _cell(self, place: str, value: float | None, cells: int, shades: Shades) -> Html:
        span = len(self.columns) if cells < len(self.columns) else None
        if value is None:
            return element("td", colspan=span)
        said = f"{place}: {knob(value)}"
        return element("td", class_=shades.of(value), title=said, colspan=span)


def _grid(one: Map) -> _Grid:
    columns = sorted(one.columns, key=_order)
    layers = sorted({i for cells in one.columns.values() for i in cells})
    inside = [
        (str(i), [(f"layer {i}, {c}", one.columns[c].get(i)) for c in columns]) for i in layers
    ]
    outside: list[Line] = [(_last(name), [(name, x)]) for name, x in one.outside.items()]
    return _Grid(one.model or "all models", columns, _ordered(list(one.outside), outside, inside))


def _side_by_side(group: Sequence[Map]) -> _Grid:
    names = [one.model or "all models" for one in group]
    each = [next(iter(one.columns.values())) for one in group]
    layers = sorted({i for cells in each for i in cells})
    inside = [
        (str(i), [(f"layer {i}, {n}", x.get(i)) for n, x in zip(names, each, strict=True)])
        for i in layers
    ]
    outside: list[Line] = [
        (_last(name), [(f"{name}, {one.model}", one.outside[name]) for one in group])
        for name in group[0].outside
    ]
    return _Grid("", names, _ordered(list(group[0].outside), outside, inside))


def _ordered(names: Sequence[str], outside: Sequence[Line], inside: Sequence[Line]) -> list[Line]:
    """Return the lines of embeddings, then of the layers, then of what stands behind them."""
    is_ahead = ["emb" in name or "wte" in name for name in names]
    pairs = list(zip(is_ahead, outside, strict=True))
    return [*(x for a, x in pairs if a), *inside, *(x for a, x in pairs if not a)]


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _order(column: str) -> tuple[int, str]:
    """Return where a column stands: attention, MLP, then norms and the like."""
    if "norm" in column:
        return 2, column
    return (0 if "att" in column else 1 if "mlp" in column else 3), column


HOW = note(
    "Rows are layers from the first (0) to the last, columns the tensors that a number holds for; "
    "point at a cell to read it. The finalists are those that were scored on the select items: "
    "where winner and mean differ, that number was not pinned down by the search."
)

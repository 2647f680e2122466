"""Candidates beside each other, each with its interval: a forest plot whose rows are a table's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.report.page.axis import Axis
from search.report.page.chart import figure
from search.report.page.found import shown_name
from search.report.page.html import Html, broken, details, element, join, note
from search.report.page.numbers import interval, number, signed
from search.report.summary import Candidate, Difference, Report
from search.report.verdict import rivals
from search.scoring.intervals import Estimate
from search.space.starting_points import BASE, PARENT


@dataclass(frozen=True)
class Point:
    """A number with its interval, and how it looks."""

    mean: float
    low: float
    high: float
    look: str = "baseline"
    said: str | None = None  # by its tooltip


@dataclass(frozen=True)
class Row:
    """A line of a forest plot: what it is of, its points, and what is written at its right.

    Args:
        name: At its left.
        points: From top to bottom.
        value: At its right; small below it.
        below: What stands below it.
        look: Of the line: ``winner`` is bold.
        full: By the name's tooltip, where the name is shortened.
    """

    name: str
    points: tuple[Point, ...]
    value: str
    below: str = ""
    look: str = "baseline"
    full: str = ""

    @classmethod
    def of(
        cls,
        name: str,
        mean: float,
        low: float,
        high: float,
        look: str = "baseline",
        value: str = "",
    ) -> Row:
        """Return the row of one number; ``value``: how it is written, if not as a score."""
        below = interval(low, high)
        return cls(name, (Point(mean, low, high, look),), value or number(mean), below, look)


def forest(
    rows: Sequence[Row],
    *,
    wide: bool = False,
    label: str = "",
    zero: bool = False,
    line: float | None = None,
) -> Html:
    """Return rows with one axis below.

    Args:
        rows: In their order.
        wide: Whether it has the page's width, so that names need a smaller part of it.
        label: What the axis is of.
        zero: Whether 0 is to be seen, and marked.
        line: A number that is marked in every row.
    """
    seen = [x for row in rows for p in row.points for x in (p.mean, p.low, p.high)]
    axis = Axis.of([*seen, *([0.0] if zero else []), *([] if line is None else [line])], most=5)
    marked = 0.0 if zero else line
    lines = [_line(row, axis, marked) for row in rows]
    ticks = [element("span", words, style=f"left:{at:g}%") for at, words in axis.ticks()]
    foot = element(
        "tr",
        element("th", label),
        element("td", *ticks, class_="ticks"),
        element("td", class_="value"),
    )
    return element(
        "table", element("tbody", *lines, foot), class_="forest wide" if wide else "forest"
    )


def _line(row: Row, axis: Axis, marked: float | None) -> Html:
    parts = [element("line", x1=f"{at}%", x2=f"{at}%", y1="0", y2="100%") for at, _ in axis.ticks()]
    marks: list[Html] = []
    if marked is not None:
        at = f"{axis.at(marked)}%"
        marks.append(element("line", x1=at, x2=at, y1="0", y2="100%", class_="line zero dashed"))
    for i, point in enumerate(row.points):
        low, high, mean = (f"{axis.at(x)}%" for x in (point.low, point.high, point.mean))
        look, y = f"s-{point.look}", f"{100 * (i + 1) / (len(row.points) + 1):.0f}%"
        said = None if point.said is None else element("title", point.said)
        marks += [
            element("line", x1=low, x2=high, y1=y, y2=y, class_=f"whisker {look}"),
            element("circle", said, cx=mean, cy=y, r="4.5", class_=look),
        ]
    drawn = element("svg", element("g", *parts, class_="grid"), *marks, aria_hidden="true")
    below = element("small", row.below) if row.below else None
    return element(
        "tr",
        element("th", broken(row.name), scope="row", title=row.full or None),
        element("td", drawn, class_="bar"),
        element("td", row.value, below, class_="value"),
        class_=row.look,
    )


def candidates(report: Report, units: Mapping[str, str]) -> Html:
    """Return every candidate of the report, overall and for each entry and task.

    Args:
        report: A finished study's.
        units: Name of an entry or task -> what its numbers are, for those of which it is known.
    """
    order = _ordered(report)
    whole = {c.name: Estimate(c.report.mean, c.report.low, c.report.high) for c in order}
    items = report.pools["report"]
    title = f"{_aggregate(report)} on {items:,} report items"
    first = figure(
        title,
        "Dot: score; bar: 95 % interval of that score alone. Two bars that overlap may still "
        "differ for sure, since all candidates answered the same items: see the differences below.",
        _of(report, order, whole, wide=True),
    )
    entries = {name: {c.name: c.report.of(name) for c in order} for name in report.entries}
    shown = (
        []
        if len(entries) == 1 and _same(whole, entries)
        else [
            figure(name, units.get(name), _of(report, order, found))
            for name, found in entries.items()
        ]
    )
    inside = [t for t in order[0].report.tasks if t not in report.entries]
    more = [
        figure(t, units.get(t), _of(report, order, {c.name: c.report.tasks[t] for c in order}))
        for t in inside
    ]
    return join(
        [
            first,
            element("div", *shown, class_="blocks") if shown else None,
            details(f"The {len(more)} tasks of the groups", element("div", *more, class_="blocks"))
            if more
            else None,
        ]
    )


def _same(whole: Mapping[str, Estimate], entries: Mapping[str, Mapping[str, Estimate]]) -> bool:
    only = next(iter(entries.values()))
    return all(math.isclose(only[name].mean, whole[name].mean) for name in whole)


def _of(
    report: Report, order: Sequence[Candidate], found: Mapping[str, Estimate], *, wide: bool = False
) -> Html:
    rows = [
        Row.of(_name(report, c), x.mean, x.low, x.high, _look(c.name))
        for c in order
        for x in [found[c.name]]
    ]
    return forest(rows, wide=wide, line=found["winner"].mean if "winner" in found else None)


def _ordered(report: Report) -> list[Candidate]:
    """Return the winner, then what no parent is, then parents and base, best first inside."""

    def place(one: Candidate) -> tuple[int, float]:
        last = 3 if one.name == BASE else 2 if one.name.startswith(PARENT) else 1
        return (0 if one.name == "winner" else last), -one.report.mean

    return sorted(report.candidates, key=place)


def _look(name: str) -> str:
    if name.startswith("front:"):
        return "finalist"
    return "winner" if name == "winner" else "baseline"


def _name(report: Report, one: Candidate) -> str:
    words = shown_name(one.name)
    if one.name == report.best_parent:
        words = words.replace("(parent)", "(best parent)")
    return f"{words}, trial {one.trial}" if one.name == "winner" else words


def _aggregate(report: Report) -> str:
    kind = str(report.score.get("aggregate", "mean")).replace("_", " ").replace("apart", "mean")
    several = len(report.score.get("entries", ())) > 1
    return f"Score: {kind} of the tasks" if several else "Score"


def differences(report: Report) -> Html | None:
    """Return the winner minus each rival, paired."""
    found = rivals(report)
    if not found:
        return None
    rows = [
        Row.of(_against(what, name), x.estimate, x.low, x.high, _won(x), signed(x.estimate))
        for what, (name, x) in found.items()
    ]
    items = report.pools["report"]
    said = (
        f"Paired over the same {items:,} report items, 95 % interval. Right of the dashed line the "
        "winner is better; an interval that reaches the line shows no difference. The intervals "
        "are of one comparison each."
    )
    wider = [
        f"{what}: {interval(w.low, w.high)}"
        for what, (_, x) in found.items()
        if (w := getattr(x, "widened", None)) is not None
    ]
    looks = getattr(report, "looks", None)
    more = (
        note(
            f"Widened, since the report items were looked at {looks.count} times "
            f"({looks.why}): {'; '.join(wider)}."
        )
        if wider and looks
        else None
    )
    return figure("The winner minus …", said, forest(rows, wide=True, zero=True), more)


def _against(what: str, name: str) -> str:
    shown = shown_name(name).replace(" (parent)", "")
    return what if what.startswith(shown) or not shown else f"{what}: {shown}"


def _won(x: Difference) -> str:
    return "winner" if x.low > 0 else "baseline"

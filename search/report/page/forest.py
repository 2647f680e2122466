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
from search.report.summary import Candidate, Difference, Limits, Report
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
    wider: Limits | None = None  # of higher confidence


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
    points = [point for row in rows for point in row.points]
    seen = [x for p in points for one in (p, p.wider) if one for x in (one.low, one.high)]
    seen += [point.mean for point in points]
    seen += [0.0] if zero else [] if line is None else [line]
    axis = Axis.of(seen, most=5 if wide else 4)
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
        if point.wider is not None:
            ends = [f"{axis.at(x)}%" for x in (point.wider.low, point.wider.high)]
            thin = f"whisker thin {look}"
            marks.append(element("line", x1=ends[0], x2=ends[1], y1=y, y2=y, class_=thin))
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


def candidates(report: Report) -> Html:
    """Return every candidate of the report, overall and for each entry and task.

    Args:
        report: A finished study's.
    """
    units = report.units or {}
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
    """Return the candidates' rows; those of the whole score are ``wide``."""
    rows = []
    for one in order:
        x, look = found[one.name], _look(one.name)
        wider = report.winner.report.widened if wide and one.name == "winner" else None
        point = Point(x.mean, x.low, x.high, look, wider=wider)
        rows.append(
            Row(_name(report, one), (point,), number(x.mean), interval(x.low, x.high), look)
        )
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
    if one.name == report.best_simple:
        words = f"{words.removesuffix(' (simple merge)')} (best simple merge)"
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
    rows = [_difference(_against(what, name), x) for what, (name, x) in found.items()]
    items = report.pools["report"]
    said = (
        f"Paired over the same {items:,} report items, 95 % interval. Right of the dashed line the "
        "winner is better; an interval that reaches the line shows no difference. The intervals "
        "are of one comparison each."
    )
    return figure("The winner minus …", said, forest(rows, wide=True, zero=True), _looks(report))


def _looks(report: Report) -> Html | None:
    if report.looks is None:
        return None
    why = " ".join(report.looks.why)
    return note(
        f"The report items were looked at {report.looks.count} times, and what was seen may have "
        "decided what was done next. The thin lines hold for all looks together (Bonferroni). ",
        why,
    )


def _difference(name: str, x: Difference) -> Row:
    look = "winner" if (x.widened or x).low > 0 else "baseline"
    point = Point(x.estimate, x.low, x.high, look, wider=x.widened)
    return Row(name, (point,), signed(x.estimate), interval(x.low, x.high), look)


def _against(what: str, name: str) -> str:
    shown = shown_name(name).removesuffix(" (parent)").removesuffix(" (simple merge)")
    return what if what.startswith(shown) or not shown else f"{what}: {shown}"

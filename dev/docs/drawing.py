"""Small SVG drawings: bars in rows, arrows in a plane. Colours are read on white and on black."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, LEFT, ROW, GAP = 640, 140, 60, 14
COLOURS = ("#4477aa", "#cc6677", "#bb9922")  # of the models, in order
MERGED, PALE, WORDS = "#228833", "#999999", "#808080"


class Row(NamedTuple):
    """Bars of one vector, and thin marks where another one would be."""

    name: str
    values: Sequence[float]
    colour: str
    beside: Sequence[float] | None = None


def bars(
    title: str, rows: Sequence[Row], *, signed: bool = True, groups: Sequence[str] = ()
) -> str:
    """Return a drawing with a row of bars for each vector, all rows on one scale.

    Args:
        title: What it shows, for who cannot see it.
        rows: Of vectors of one length.
        signed: Whether bars go down from the line, too.
        groups: Names of equal parts of the entries, written above them.
    """
    most = max(abs(x) for row in rows for x in (*row.values, *(row.beside or ())))
    head = 22 if groups else GAP
    height = head + len(rows) * (ROW + GAP)
    width = (WIDTH - 10 - LEFT) / max(1, len(groups))
    parts = [_text(LEFT + (i + 0.5) * width, 14, x, "middle") for i, x in enumerate(groups)]
    edges = [LEFT + i * width for i in range(1, len(groups))]
    parts += [_line(x, head, x, height - GAP, PALE, 0.5) for x in edges]
    for place, row in enumerate(rows):
        top = head + place * (ROW + GAP)
        zero = top + ROW / (2 if signed else 1)
        scale = ROW / (2 if signed else 1) / most
        parts.append(_text(LEFT - 10, top + ROW / 2 + 4, row.name, "end"))
        parts.append(_line(LEFT, zero, WIDTH - 10, zero, PALE, 0.5))
        parts += _row(row, zero, scale)
    return _svg(title, WIDTH, height, parts)


def _row(row: Row, zero: float, scale: float) -> list[str]:
    step = (WIDTH - 10 - LEFT) / len(row.values)
    parts = []
    for i, value in enumerate(row.values):
        x, length = LEFT + (i + 0.15) * step, abs(value) * scale
        top = zero - length if value > 0 else zero
        if length > 0.05:
            parts.append(
                f'<rect x="{x:.1f}" y="{top:.1f}" width="{step * 0.7:.1f}" '
                f'height="{length:.1f}" fill="{row.colour}"/>'
            )
        if row.beside is not None:
            y = zero - row.beside[i] * scale
            parts.append(_line(x - step * 0.1, y, x + step * 0.8, y, PALE, 1.5))
    return parts


class Arrow(NamedTuple):
    """A vector from the origin, or a dot where ``dot``."""

    name: str
    to: tuple[float, float]
    colour: str
    dot: bool = False


def plane(
    title: str,
    arrows: Sequence[Arrow],
    *,
    path: Sequence[tuple[float, float]] = (),
    chord: Sequence[tuple[float, float]] = (),
) -> str:
    """Return a drawing of vectors in a plane.

    Args:
        title: What it shows, for who cannot see it.
        arrows: With their names at the tips.
        path: A line of what a method gives for changing parameters.
        chord: A pale line of what a plain mean would give.
    """
    side, margin = 320, 40
    points = [arrow.to for arrow in arrows] + [*path, *chord, (0.0, 0.0)]
    low = [min(p[k] for p in points) for k in (0, 1)]
    most = max(max(p[k] for p in points) - low[k] for k in (0, 1))
    high = max(p[1] for p in points)

    def at(point: tuple[float, float]) -> tuple[float, float]:
        scale = (side - 2 * margin) / most
        return margin + (point[0] - low[0]) * scale, margin + (high - point[1]) * scale

    origin, parts = at((0.0, 0.0)), []
    for line, colour, width in ((chord, PALE, 1.5), (path, MERGED, 2.5)):
        if line:
            dots = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, line))
            parts.append(
                f'<polyline points="{dots}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
            )
    for arrow in arrows:
        x, y = at(arrow.to)
        if not arrow.dot:
            parts.append(_arrow(*origin, x, y, arrow.colour))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{arrow.colour}"/>')
        below = arrow.to == (0.0, 0.0)
        parts.append(_text(x + 8, y + (18 if below else -10), arrow.name, "start"))
    return _svg(title, side + 160, round(at((low[0], low[1]))[1]) + margin, parts)


def _arrow(x0: float, y0: float, x1: float, y1: float, colour: str) -> str:
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    x, y = x1 - 4 * (x1 - x0) / length, y1 - 4 * (y1 - y0) / length
    return _line(x0, y0, x, y, colour, 2.0)


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, width: float) -> str:
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" '
        f'stroke="{colour}" stroke-width="{width}"/>'
    )


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{WORDS}" '
        f'font-family="sans-serif" font-size="13">{escape(words)}</text>'
    )


def _svg(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">\n'
        f"<title>{escape(title)}</title>\n{body}\n</svg>\n"
    )

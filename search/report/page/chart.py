"""Charts as wide as the page: shapes stand at per cents, words beside them keep their size.

One drawing fits a wide screen, a narrow one and paper. Lines are in a drawing of 100 by 100 that is
stretched, their strokes are not; dots have a radius in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from search.report.page.axis import Axis
from search.report.page.html import Html, element

LINE = 15  # pixels that a label takes
Point = tuple[float, float]


@dataclass
class Chart:
    """A drawing with two axes.

    Args:
        name: What it shows, for those who do not see it.
        x, y: Its axes.
        height: Of the drawing, in pixels.
    """

    name: str
    x: Axis
    y: Axis
    height: int = 300
    _under: list[Html] = field(default_factory=list)
    _marks: list[Html] = field(default_factory=list)
    _labels: list[tuple[float, str, str]] = field(default_factory=list)
    _words: list[Html] = field(default_factory=list)

    def dot(self, at: Point, look: str, said: str | None = None, *, size: float = 3) -> None:
        """Draw a dot; ``look``: its class, ``said``: its tooltip; ``square`` ones have corners."""
        x, y = self._place(at)
        title = None if said is None else element("title", said)
        if "square" in look:
            self._marks.append(
                element(
                    "rect",
                    title,
                    x=f"{x}%",
                    y=f"{y}%",
                    width=2 * size,
                    height=2 * size,
                    transform=f"translate({-size} {-size})",
                    class_=look,
                )
            )
        else:
            self._marks.append(
                element("circle", title, cx=f"{x}%", cy=f"{y}%", r=size, class_=look)
            )

    def upright(self, x: float, low: float, high: float, look: str) -> None:
        """Draw an interval of ``y``."""
        self._segment((x, low), (x, high), f"whisker {look}")

    def level(self, y: float, low: float, high: float, look: str) -> None:
        """Draw an interval of ``x``."""
        self._segment((low, y), (high, y), f"whisker {look}")

    def line(self, points: Sequence[Point], look: str) -> None:
        """Draw a line through points."""
        if not points:
            return
        places = " ".join(f"{x:g},{y:g}" for x, y in map(self._place, points))
        self._marks.append(stretched(element("path", d=f"M{places}", class_=f"line {look}")))

    def steps(self, points: Sequence[Point], look: str) -> None:
        """Draw a line that keeps its height up to the next point, and to the end of the axis."""
        found: list[Point] = []
        for x, y in points:
            found += [(x, found[-1][1])] if found else []
            found.append((x, y))
        if found:
            self.line([*found, (self.x.high, found[-1][1])], look)

    def across(self, y: float, look: str, label: str = "") -> None:
        """Draw a line over the whole width, with a label at its right end."""
        self._segment((self.x.low, y), (self.x.high, y), f"line {look}")
        if label:
            self._labels.append((self._place((0, y))[1], label, look))

    def down(self, x: float, look: str) -> None:
        """Draw a line over the whole height."""
        self._segment((x, self.y.low), (x, self.y.high), f"line {look}")

    def diagonal(self, look: str) -> None:
        """Draw where both numbers are the same."""
        low, high = max(self.x.low, self.y.low), min(self.x.high, self.y.high)
        if low < high:
            self._segment((low, low), (high, high), f"line {look}")

    def band(self, low: float, high: float, look: str, label: str = "") -> None:
        """Shade a part of the ``x`` axis; the label stands at its top."""
        left, right = self.x.at(low), self.x.at(high)
        self._under.append(
            element(
                "rect", x=f"{left}%", y="0", width=f"{right - left:g}%", height="100%", class_=look
            )
        )
        if label:
            self._words.append(element("span", label, class_="word", style=f"left:{left}%;top:0"))

    def html(self) -> Html:
        """Return the chart."""
        ys, xs = self.y.ticks(), self.x.ticks()
        grid = [
            element("line", x1="0", x2="100%", y1=f"{100 - at:g}%", y2=f"{100 - at:g}%")
            for at, _ in ys
        ]
        plot = element(
            "svg",
            element("g", *grid, class_="grid"),
            *self._under,
            *self._marks,
            class_="plot",
            style=f"height:{self.height}px",
            aria_hidden="true",
        )
        sizing = element(
            "span", max((words for _, words in ys), key=len, default=""), class_="size"
        )
        left = [element("span", words, style=f"top:{100 - at:g}%") for at, words in ys]
        below = [element("span", words, style=f"left:{at:g}%") for at, words in xs]
        return element(
            "div",
            element("div", self.y.label, class_="ylabel"),
            element("div", sizing, *left, class_="yticks"),
            element("div", plot, *self._words, *self._spread(), class_="inside"),
            element("div", *below, class_="xticks"),
            element("div", self.x.label, class_="xlabel"),
            class_="chart",
            role="img",
            aria_label=self.name,
        )

    def _place(self, at: Point) -> Point:
        return self.x.at(at[0]), round(100 - self.y.at(at[1]), 2)

    def _segment(self, start: Point, end: Point, look: str) -> None:
        (x1, y1), (x2, y2) = self._place(start), self._place(end)
        self._marks.append(
            element("line", x1=f"{x1}%", y1=f"{y1}%", x2=f"{x2}%", y2=f"{y2}%", class_=look)
        )

    def _spread(self) -> Iterable[Html]:
        """Return the labels of lines, moved apart where they would cover each other."""
        least, last = 100 * LINE / self.height, -100.0
        labels = sorted(self._labels)
        for i, (place, label, look) in enumerate(labels):
            top = max(place - least, last + least, 0.0)
            last = min(top, 100 - least * (len(labels) - i))
            yield element("span", label, class_=f"tag {look}", style=f"top:{last:.2f}%")


def stretched(*parts: Html) -> Html:
    """Return a drawing of 100 by 100 that fills what it stands in."""
    return element(
        "svg",
        *parts,
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        width="100%",
        height="100%",
    )


def figure(title: str, caption: str | Html | None, *parts: Html | None) -> Html:
    """Return a figure: its title, what is drawn, and how it is read."""
    said = None if caption is None else element("p", caption, class_="how")
    head = element("h3", title)
    return element("figure", element("figcaption", head, said), *parts)


def legend(entries: Iterable[tuple[str, str]]) -> Html:
    """Return what the looks of dots and lines mean: class -> words."""
    made = []
    for look, words in entries:
        if "line" in look.split():
            sign = element("line", x1="0", x2="18", y1="6", y2="6", class_=look)
        elif "square" in look:
            sign = element("rect", x="5.5", y="2.5", width="7", height="7", class_=look)
        else:
            sign = element("circle", cx="9", cy="6", r="4", class_=look)
        svg = element("svg", sign, width="18", height="12", aria_hidden="true")
        made.append(element("li", svg, element("span", words)))
    return element("ul", *made, class_="legend")

"""Markup that is escaped by construction: a plain text inside an element is text, whoever wrote it.

What comes out is well-formed as XML, too, so a test reads a page with any parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Union

from merge_core.printable import printable

_NO_XML = re.compile("[\ufffe\uffff]")  # what XML does not allow beside control characters
Part = Union["Html", str, int, float, None, Iterable["Part"]]
EMPTY = ("br", "meta", "wbr")
WITH_END = ("circle", "line", "path", "rect")  # of SVG: may close themselves


class Html(str):
    """Markup, which is put into other markup as it is."""

    __slots__ = ()


def text(words: object) -> Html:
    """Return a text as markup: escaped, control characters written out."""
    return Html(escape(_NO_XML.sub("\N{REPLACEMENT CHARACTER}", printable(str(words)))))


def broken(words: str) -> Html:
    """Return a name as markup that may be broken after the signs that join its parts."""
    return Html(re.sub(r"([/._:=-])(?=\w)", r"\1<wbr/>", text(words)))


def element(tag: str, *parts: Part, **attributes: object) -> Html:
    """Return an element.

    Args:
        tag: Its name.
        parts: What is in it: markup stays as it is, all else is escaped; None is nothing.
        attributes: ``class_`` and the like lose the last underscore, other underscores are hyphens;
            one that is None or False is left out.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(value)}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    inside = "".join(_flat(parts))
    if tag in EMPTY or (tag in WITH_END and not inside):
        return Html(f"<{tag}{given}/>")
    return Html(f"<{tag}{given}>{inside}</{tag}>")


def join(parts: Iterable[Part]) -> Html:
    """Return parts as one."""
    return Html("".join(_flat(parts)))


def _flat(parts: Iterable[Part]) -> Iterable[str]:
    for part in parts:
        if part is None:
            continue
        if isinstance(part, Html):
            yield part
        elif isinstance(part, str | int | float):
            yield text(part)
        else:
            yield from _flat(part)


def table(head: Iterable[Part], rows: Iterable[Iterable[Part]], *, words: int = 1) -> Html:
    """Return a table in a box of its own that scrolls where the page is narrow.

    Args:
        head: Titles of the columns.
        rows: Their cells.
        words: How many columns from the left hold words; the others hold numbers.
    """

    def cell(tag: str, at: int, part: Part) -> Html:
        return element(tag, part, class_=None if at < words else "n")

    lines = [element("tr", [cell("td", i, part) for i, part in enumerate(row)]) for row in rows]
    titles = element("tr", [cell("th", i, part) for i, part in enumerate(head)])
    made = element("table", element("thead", titles), element("tbody", lines), class_="plain")
    return element("div", made, class_="scroll", tabindex="0")


def facts(pairs: Iterable[tuple[Part, Part]]) -> Html:
    """Return a list of what is what."""
    return element("dl", [[element("dt", k), element("dd", v)] for k, v in pairs], class_="facts")


def section(title: str, name: str, *parts: Part) -> Html:
    """Return a section with its heading; ``name``: its anchor."""
    return element("section", element("h2", title), *parts, id=name)


def note(*parts: Part) -> Html:
    """Return a paragraph that says how something is read."""
    return element("p", *parts, class_="note")


def details(summary: Part, *parts: Part) -> Html:
    """Return what is shown on demand."""
    return element("details", element("summary", summary), *parts)

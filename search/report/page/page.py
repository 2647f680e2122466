"""The page of a study: what it found first, then how it was found, then on what.

It is one file that needs nothing else, neither script nor network, and is well-formed as XML.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from search.report.page import forest
from search.report.page.about import provenance, repeat
from search.report.page.answers import answers
from search.report.page.costs import costs
from search.report.page.course import course
from search.report.page.finalists import optimism, pareto
from search.report.page.found import Found
from search.report.page.html import Html, element, section
from search.report.page.knobs import knobs
from search.report.page.numbers import counted
from search.report.page.recipe import recipe
from search.report.page.style import style
from search.report.so_far import SoFar
from search.report.verdict import sentences

STATES = {
    "complete": "scored on all search items",
    "stopped": "stopped early",
    "unscored": "steps by gradient between two scored ones",
}
Part = Callable[[Found], Html | None]


def page(found: Found) -> str:
    """Return the page."""
    title = f"{found.name}: report of a search for merge recipes"
    parts = [made for part in PARTS if (made := part(found)) is not None]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content="mergetune"),
        element("title", title),
        Html(f"<style>{style()}</style>"),
    )
    body = element("body", element("main", *_opening(found), _contents(parts), *parts))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _opening(found: Found) -> list[Html]:
    made = [element("h1", found.name), element("p", _ran(found), class_="meta")]
    if found.report is None:
        made.append(
            element(
                "p",
                "This study is not finished: there is no winner yet, nothing was measured on "
                "report items, and every score below is one of the search, which is too high by "
                "design where it is the best of many.",
                class_="warn",
            )
        )
        so_far = SoFar.of_trials(found.name, found.trials, found.about).verdict()
        said = [element("p", sentence) for sentence in so_far]
        return [*made, element("div", *said, class_="verdict")] if said else made
    later = found.later_than_report()
    if later:
        made.append(
            element(
                "p",
                f"The search went on: {counted(later, 'trial')} came after this report was made.",
                class_="warn",
            )
        )
    first, *rest = sentences(found.report)
    said = [element("p", first, class_="lead"), *(element("p", x) for x in rest)]
    return [*made, element("div", *said, class_="verdict")]


def _contents(parts: list[Html]) -> Html:
    found = re.findall(r'<section id="([\w-]+)"><h2>(.*?)</h2>', "".join(parts))
    return element("nav", *(element("a", Html(title), href=f"#{name}") for name, title in found))


def _ran(found: Found) -> str:
    states = found.states()
    told = ", ".join(f"{count:,} {STATES.get(state, state)}" for state, count in states.items())
    return f"{counted(len(found.trials), 'trial')}: {told}"


def _compared(found: Found) -> Html | None:
    if found.report is None:
        return None
    return section(
        "Winner, parents and simple merges",
        "candidates",
        forest.candidates(found.report),
        forest.differences(found.report),
    )


PARTS: tuple[Part, ...] = (
    *(_compared, recipe, course, optimism, knobs, pareto, answers),
    *(costs, provenance, repeat),
)

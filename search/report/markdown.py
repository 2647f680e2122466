"""The report for model cards: the verdict, a table, the recipe, what it holds for."""

from __future__ import annotations

import re
from collections.abc import Mapping

from merge_core.printable import printable
from search.report.page.numbers import interval, number
from search.report.summary import Report
from search.report.verdict import sentences
from search.scoring.intervals import Estimate

MEANT = re.compile(r"([\\`*_{}\[\]<>#|~$&!])")  # signs that mean something in Markdown


def markdown(
    report: Report, recipe: str, measured_on: Mapping[str, str] | None = None, command: str = ""
) -> str:
    """Return the report.

    Args:
        report: A finished study's.
        recipe: The winner's, as YAML.
        measured_on: What it holds for: versions, devices, tasks and the like.
        command: That repeats it.
    """
    verdict = "\n".join(words(x) for x in sentences(report))
    parts = [
        f"# {words(report.study)}",
        verdict,
        table(report),
        "## Recipe",
        fenced(recipe, "yaml"),
    ]
    if measured_on:
        facts = "\n".join(f"- {words(k)}: {words(v)}" for k, v in measured_on.items())
        parts += ["## Measured on", facts]
    notices = [f"- {words(x)}" for x in report.notices]
    if notices:
        parts += ["## Notices", "\n".join(notices)]
    if command:
        parts += ["## To repeat it", fenced(command, "sh")]
    return "\n\n".join(parts) + "\n"


def table(report: Report) -> str:
    """Return the candidates with their scores on the report items, as a table."""
    several = len(report.entries) > 1
    whole = str(report.score.get("aggregate", "mean")).replace("_", " ").replace("apart", "mean")
    head = ["candidate", *([whole] if several else []), *report.entries]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for one in report.candidates:
        found = one.report
        overall = [_shown(Estimate(found.mean, found.low, found.high))] if several else []
        each = [_shown(found.of(name)) for name in report.entries]
        bold = "**" if one.name == "winner" else ""
        rows.append([f"{bold}{words(one.name)}{bold}", *overall, *each])
    rows[0] = [words(x) for x in rows[0]]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    items = report.pools["report"]
    said = f"Scores on {items:,} report items, which chose nothing, with 95 % intervals."
    return "\n".join([said, "", *lines])


def _shown(x: Estimate) -> str:
    return f"{number(x.mean)} ({interval(x.low, x.high)})"


def words(text: str) -> str:
    """Return a text as a line of Markdown that means nothing but itself."""
    return MEANT.sub(r"\\\1", printable(" ".join(text.split())))


def fenced(text: str, language: str) -> str:
    """Return a block of code, whatever is in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{printable(text).rstrip()}\n{fence}"

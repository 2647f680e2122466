"""Which knobs mattered, as bars with their uncertainty."""

from __future__ import annotations

import re

from search.report.importance import LEAST, importance
from search.report.page.chart import figure, legend
from search.report.page.forest import Point, Row, forest
from search.report.page.found import Found
from search.report.page.html import Html, note, section
from search.report.page.numbers import counted, number
from search.scoring.intervals import Z95

SHOWN = 24  # knobs that are drawn


def knobs(found: Found) -> Html | None:
    """Return the section on the importance of knobs."""
    if not found.distributions:
        return None
    found_ = importance(found.trials, found.distributions)
    if found_ is None:
        said = f"Too few candidates for that: fewer than {LEAST} were drawn and scored."
        return section("Importance of knobs", "importance", note(said))
    shown = list(found_.knobs.items())[:SHOWN]
    rows = [_row(name, 100 * share, 100 * Z95 * error) for name, (share, error) in shown]
    clear = found_.chance is not None and found_.chance < 1
    line = 100 * (found_.chance or 0.0) if clear else None
    rest: list[Html] = []
    signs = [("s-searched", "importance with 95 % interval")]
    if clear:
        signs.append(("line zero dashed", "19 of 20 knobs without effect stay left of this"))
    drawn = forest(rows, wide=True, label="share of all knobs' importance, %", line=line)
    if found_.chance is not None and not clear:
        rest.append(note("No knob can be told from chance here: so few candidates differ."))
    left = len(found_.knobs) - len(shown)
    if left:
        rest.append(note(f"{counted(left, 'knob')} of less importance not drawn."))
    how = _how(found, found_.by, found_.count)
    made = figure("Which knobs decided", how, drawn, legend(signs), *rest)
    return section("Importance of knobs", "importance", made)


def _row(name: str, share: float, error: float) -> Row:
    point = Point(share, max(0.0, share - error), min(100.0, share + error), "searched")
    ends = f"{number(point.low, 1)} to {number(point.high, 1)} %"
    return Row(short(name), (point,), f"{number(share, 1)} %", ends, full=name)


def short(name: str) -> str:
    """Return the name of a knob of one tensor without what all tensors' names have."""
    name = name.removesuffix(".weight")
    return re.sub(r"(?<=/)(?:[a-z_]+\.)*?(?:(?:layers|h|blocks)\.(\d+)\.|(?=\w+$))", _layer, name)


def _layer(found: re.Match[str]) -> str:
    return f"layer {found[1]} " if found[1] else ""


def _how(found: Found, by: str, count: int) -> str:
    if by == "slopes":
        return (
            f"Mean over {counted(count, 'step')} by gradient of how steep the loss was by a knob, "
            "times its range; bars: 95 % by the spread over the steps. It says where the search "
            "had something to gain on its way, not what the end point would lose without a knob."
        )
    mean = " (of the mean of the objectives)" if any(t.values for t in found.trials) else ""
    return (
        f"PED-ANOVA over {count:,} candidates{mean}: how much a knob's values among the best "
        "differ from those among all; bars: 95 % by bootstrap over candidates. What lies left of "
        "the dashed line cannot be told from chance. It speaks of each knob alone, not of knobs "
        "that matter together, and of the region that the sampler looked at."
    )

"""Which knobs mattered, as bars with their uncertainty."""

from __future__ import annotations

from search.report.importance import LEAST, importance
from search.report.page.chart import figure, legend
from search.report.page.forest import Row, forest
from search.report.page.found import Found, Z
from search.report.page.html import Html, note, section
from search.report.page.numbers import counted, number

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
    rows = [
        Row.of(
            name,
            100 * share,
            100 * max(0.0, share - Z * error),
            100 * (share + Z * error),
            "searched",
            f"{number(100 * share, 1)} %",
        )
        for name, (share, error) in shown
    ]
    line = None if found_.chance is None else 100 * found_.chance
    signs = [("s-searched", "importance with 95 % interval")]
    if found_.chance is not None:
        signs.append(("line zero dashed", "19 of 20 knobs without effect stay left of this"))
    drawn = forest(rows, label="share of all knobs' importance, %", line=line)
    left = len(found_.knobs) - len(shown)
    more = note(f"{counted(left, 'knob')} of less importance not drawn.") if left else None
    return section(
        "Importance of knobs",
        "importance",
        figure(
            "Which knobs decided", _how(found, found_.by, found_.count), drawn, legend(signs), more
        ),
    )


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

"""What a report says in words, and whom it compares the winner with."""

from __future__ import annotations

from search.report.page.numbers import interval, number, signed
from search.report.sentences import verdict
from search.report.summary import Difference, Report, Verdict

SAID: dict[Verdict, str] = {
    "better": "is better than",
    "worse": "is worse than",
    "no difference shown": "shows no difference to",
}


def rivals(report: Report) -> dict[str, tuple[str, Difference]]:
    """Return whom the winner is compared with: what it is -> its name, and the difference."""
    winner = report.winner
    found = {
        "best parent": (report.best_parent, winner.minus_best_parent),
        "best simple merge": (
            report.best_simple or "",
            winner.minus_best_simple,
        ),
        "uniform merge": ("uniform", winner.minus_uniform),
        "base": ("base", winner.minus_base),
    }
    return {what: (name, x) for what, (name, x) in found.items() if x is not None}


def sentences(report: Report) -> list[str]:
    """Return the verdict; of a summary of an earlier version, one from its numbers."""
    return report.sentences or [_overall(report), *_each(report)]


def _overall(report: Report) -> str:
    own, items = report.winner.report, report.pools["report"]
    return (
        f"The winner scores {number(own.mean)} on {items:,} items that chose nothing (95 % "
        f"interval {interval(own.low, own.high)})."
    )


def _each(report: Report) -> list[str]:
    items = report.pools["report"]
    found = []
    for what, (_, x) in rivals(report).items():
        found.append(
            f"It {SAID[verdict(x)]} the {what}: {signed(x.estimate)} (95 % interval "
            f"{signed(x.low)} to {signed(x.high)}, paired over {items:,} items)."
        )
    return found

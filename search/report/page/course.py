"""How the search went: the best so far, every candidate, who was stopped when, who failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from statistics import median

from search.report.page.axis import Axis
from search.report.page.chart import Chart, Point, figure, legend
from search.report.page.found import Found, kind_of, label, shown_name
from search.report.page.html import Html, details, element, join, section, table
from search.report.page.numbers import counted, number, percent
from search.scoring.intervals import Z95
from search.space.starting_points import BASE, UNIFORM
from search.trial.budget import seconds
from search.trial.trial import Trial

WITH_TOOLTIPS = 3000  # trials up to which each dot says what it is
FAILED_SHOWN = 200
LOOKS = {
    "winner": ("s-winner", "winner"),
    "finalist": ("s-finalist", "finalist"),
    "searched": ("s-searched", "drawn by the sampler"),
    "gradient": ("s-gradient", "step by gradient"),
    "stopped": ("s-stopped", "stopped by the race (estimate)"),
    "baseline": ("s-baseline square", "baseline"),
}


def course(found: Found) -> Html | None:
    """Return the section on the search."""
    parts = [_best(found), _all(found), _stopped(found), _failed(found)]
    made = [part for part in parts if part is not None]
    return section("The search", "search", *made) if made else None


def _best(found: Found) -> Html | None:
    done = [t for t in found.trials if t.value is not None and t.state != "stopped"]
    if not done:
        return None
    items = list(accumulate(t.cost for t in found.trials))
    spent = list(accumulate(seconds(t) for t in found.trials))
    label, scale = ("seconds", 1.0) if spent[-1] < 7200 else ("hours", 3600.0)
    charts = [
        _rising(found, items, "items evaluated"),
        _rising(found, [x / scale for x in spent], f"{label} of work, all trials together"),
    ]
    said = (
        f"The {found.metric} of the best candidate up to there (higher is better). It is the best "
        "of many on the same items and so too high: the report items say what holds. Dashed lines: "
        "what needed no search, on the same items."
    )
    signs = [("line best", "best so far"), ("line dashed s-baseline", "baseline")]
    if any(t.gradient for t in found.trials):
        signs.append(("square s-shade", "steps by gradient"))
    return figure("Best so far", said, element("div", *charts, class_="blocks two"), legend(signs))


def _rising(found: Found, at: Sequence[float], words: str) -> Html:
    """Return the best search score over what was spent; ``at``: spent after each trial."""
    marks: list[Point] = []
    for trial, x in zip(found.trials, at, strict=True):
        value = None if trial.state == "stopped" else trial.value
        if value is not None and (not marks or value > marks[-1][1]):
            marks.append((x, value))
    lines = _rivals(found)
    heights = [*(y for _, y in marks), *lines.values()]
    x_axis = Axis.of([0.0, at[-1]], words, room=0.0)
    chart = Chart(
        f"best {found.metric} over {words}", x_axis, Axis.of(heights, found.metric, room=0.08)
    )
    steps = [x for t, x in zip(found.trials, at, strict=True) if t.gradient is not None]
    if steps:
        chart.band(steps[0], steps[-1], "s-shade")
    for name, height in lines.items():
        chart.across(height, "dashed s-baseline", f"{name} {number(height)}")
    chart.steps(marks, "best")
    return chart.html()


def _rivals(found: Found) -> dict[str, float]:
    """Return the baselines that are drawn as lines: name -> search score."""
    named = {t.baseline: t.value for t in found.trials if t.baseline and t.value is not None}
    report = found.report
    wanted = {BASE: "base", UNIFORM: "uniform"}
    if report is not None:
        wanted[report.best_parent] = "best parent"
        if report.best_simple:
            wanted[report.best_simple] = "best simple merge"
    return {words: named[name] for name, words in wanted.items() if name in named}


def _all(found: Found) -> Html | None:
    scored = found.scored
    if not scored:
        return None
    finalists, winner = {t.number for t in found.finalists}, found.winner
    best = None if winner is None else winner.number
    kinds = {t.number: kind_of(t, best, finalists) for t in scored}
    ends = [(t.value or 0.0) + s * Z95 * (t.stderr or 0.0) for t in scored for s in (-1, 1)]
    chart = Chart(
        "every candidate's search score with its interval",
        Axis.of([t.number for t in scored], "trial, in order of settling", whole=True, room=0.015),
        Axis.of(_without_far_ones(ends), found.metric),
        320,
    )
    size = 3.0 if len(scored) <= 300 else 2.2
    told: Callable[[Trial], str | None] = _told if len(scored) <= WITH_TOOLTIPS else lambda _: None
    order = sorted(scored, key=lambda t: (kinds[t.number] in ("finalist", "winner"), t.number))
    for trial in order:
        value, error, kind = trial.value or 0.0, Z95 * (trial.stderr or 0.0), kinds[trial.number]
        look = LOOKS[kind][0]
        if error:
            weight = "" if kind == "winner" else " thin"
            chart.upright(trial.number, value - error, value + error, f"{look}{weight}")
        chart.dot((trial.number, value), look, told(trial), size=size + 2 * (kind == "winner"))
    said = (
        "Bar: 95 % interval of that candidate's own score on the search items. It does not say how "
        "sure it is that one candidate beats another (they answered the same items), nor that the "
        "best of many is too high."
    )
    signs = [LOOKS[kind] for kind in LOOKS if kind in kinds.values()]
    return figure("Every candidate", said, chart.html(), legend(signs))


def _without_far_ones(ends: list[float]) -> list[float]:
    """Return ends without those that would squeeze all others; they stand at the chart's edge."""
    ordered = sorted(x for x in ends if abs(x) != float("inf"))
    if len(ordered) < 40:
        return ordered
    low, high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    span = max(high - low, 1e-9)
    return [x for x in ordered if low - 3 * span <= x <= high + 3 * span]


def _told(trial: Trial) -> str:
    error = "" if trial.stderr is None else f" ± {number(Z95 * trial.stderr)}"
    return f"{label(trial)}: {number(trial.value)}{error}"


def _stopped(found: Found) -> Html | None:
    stopped = [t for t in found.trials if t.state == "stopped"]
    if not stopped:
        return None
    whole = sum(found.items("search").values()) or 1
    shares = {t.number: t.search.items / whole for t in stopped}
    full = [t for t in found.trials if t.state == "complete" and t.same_as is None]
    chart = Chart(
        "share of the search items that each candidate saw",
        Axis.of([t.number for t in found.trials], "trial", whole=True, room=0.015),
        Axis.of([0.0, 100.0], "search items seen, %", room=0.03),
        220,
    )
    for trial in full:
        chart.dot((trial.number, 100.0), "s-searched faint", size=2.2)
    for trial in stopped:
        words = f"{label(trial)}: stopped after {percent(shares[trial.number])} of the items"
        chart.dot((trial.number, 100 * shares[trial.number]), "s-stopped", words, size=2.8)
    saved = sum(whole - t.search.items for t in stopped)
    said = (
        f"{counted(len(stopped), 'candidate')} of {len(stopped) + len(full):,} were stopped, half "
        f"of them by {percent(median(shares.values()))} of the search items; {saved:,} items were "
        f"not evaluated for it. {_rules(found)}Its score on all items is an estimate. "
        f"{_price(found)}"
    )
    signs = [("s-stopped", "stopped"), ("s-searched faint", "saw all items")]
    return figure("Who was stopped when", said, chart.html(), legend(signs))


def _rules(found: Found) -> str:
    race = found.about.get("race") or {}
    if not {"margin", "error"} <= {*race}:
        return ""
    return (
        "One is stopped when its items refute that it is better than the best by "
        f"{race['margin']:g}; of those that truly are, at most {percent(race['error'])} are "
        "stopped. "
    )


def _price(found: Found) -> str:
    """Return what is known of what races cost: those who were scored whole, raced again."""
    race = None if found.report is None else found.report.race
    if race is None or not race.again.trials:
        return ""
    again = race.again
    said = (
        f"Raced again, of {counted(again.trials, 'trial')} that had seen all items {again.stopped} "
        f"would be stopped: {again.missed} of them better than the best before, {again.wrongly} by "
        "the margin. "
    )
    if not again.looks:
        return said
    first, last = again.looks[0], again.looks[-1]
    return said + (
        f"The estimate of a score is off by {number(first.rmse)} (root mean square) after "
        f"{first.items:,} items and by {number(last.rmse)} after {last.items:,}."
    )


def _failed(found: Found) -> Html | None:
    failed = [t for t in found.trials if t.state == "failed"]
    dropped = [t for t in found.trials if t.dropped]
    parts: list[Html] = []
    if failed:
        rows = [
            (str(t.number), shown_name(t.baseline or ""), t.reason) for t in failed[:FAILED_SHOWN]
        ]
        more = len(failed) - len(rows)
        words = (
            f"{counted(len(failed), 'trial')} failed{f'; the first {len(rows)}' if more else ''}"
        )
        parts.append(details(words, table(("trial", "baseline", "why"), rows, words=3)))
    if dropped:
        rows = [(str(t.number), shown_name(t.baseline or ""), t.dropped) for t in dropped]
        parts.append(
            details(
                f"{counted(len(dropped), 'trial')} dropped later",
                table(("trial", "baseline", "why"), rows, words=3),
            )
        )
    return join(parts) if parts else None

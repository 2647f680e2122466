"""What was promised and what held: the finalists' scores on each pool, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, islice

from search.report.page.axis import Axis
from search.report.page.chart import Chart, figure, legend
from search.report.page.forest import Point, Row, forest
from search.report.page.found import Found, label
from search.report.page.html import Html, element, note, section, table
from search.report.page.numbers import counted, number, signed
from search.report.summary import Scored
from search.scoring.intervals import Z95
from search.scoring.pareto import front
from search.trial.trial import Trial

MOST_PAIRS = 6
POOLS = {
    "search": ("searched", "search items (steered the search; too high)"),
    "select": ("finalist", "select items (chose the winner)"),
    "report": ("winner", "report items (chose nothing: what holds)"),
}
Scores = Mapping[str, tuple[float, float, float]]  # pool -> mean and interval


def optimism(found: Found) -> Html | None:
    """Return the section that compares search and report scores."""
    report = found.report
    if report is None:
        return None
    rows = _rows(found)
    drawn = [
        Row(
            name,
            tuple(
                Point(*three, POOLS[pool][0], f"{name}, {pool} items: {number(three[0])}")
                for pool, three in scores.items()
            ),
            *_gap(scores),
            "winner" if i == 0 else "baseline",
        )
        for i, (name, scores) in enumerate(rows)
    ]
    seen = {pool for _, scores in rows for pool in scores}
    signs = legend((f"s-{look}", x) for pool, (look, x) in POOLS.items() if pool in seen)
    made = figure("Search, select and report", _said(found), forest(drawn, wide=True), signs)
    return section("What the search promised, and what holds", "optimism", made)


def _gap(scores: Scores) -> tuple[str, str]:
    """Return what is written beside a finalist: what is known best of it, and its optimism."""
    best = next((pool for pool in ("report", "select") if pool in scores), None)
    if best is None:
        return "", ""
    if "search" not in scores:
        return number(scores[best][0]), f"on {best} items"
    return number(scores[best][0]), f"optimism {signed(scores['search'][0] - scores[best][0])}"


def _said(found: Found) -> str:
    assert found.report is not None
    own = found.report.winner
    tail = (
        "Bars: 95 % intervals of each score alone. Finalists that did not win were measured on a "
        "part of the report items, for this picture only."
    )
    if found.steered_by:
        return (
            "The search was steered by another metric, so its scores are in another unit and not "
            f"shown here. {tail}"
        )
    gap = own.search.mean - own.report.mean
    return (
        f"The winner scored {number(own.search.mean)} on the items that steered the search and "
        f"{number(own.report.mean)} on the report items: {signed(gap)} of optimism. The best of "
        "many noisy scores is too high; where dots of a row lie apart, that is by how much. "
        f"{tail}"
    )


def _rows(found: Found) -> list[tuple[str, Scores]]:
    """Return the winner and the other finalists, best first, with what is known of each."""
    report = found.report
    assert report is not None
    own, trials = report.winner, found.trials
    first = _scores(found, trials[own.trial], own.select, own.report)
    others = [
        (label(trials[one.trial]), _scores(found, trials[one.trial], one.select, one.report))
        for one in report.finalists
        if one.trial != own.trial
    ]
    return [(f"winner, trial {own.trial}", first), *others]


def _scores(found: Found, trial: Trial, select: Scored, report: Scored | None) -> Scores:
    scores: dict[str, tuple[float, float, float]] = {}
    if trial.value is not None and not found.steered_by:
        error = Z95 * (trial.stderr or 0.0)
        scores["search"] = (trial.value, trial.value - error, trial.value + error)
    for pool, one in (("select", select), ("report", report)):
        if one is not None:
            scores[pool] = (one.mean, one.low, one.high)
    return scores


def pareto(found: Found) -> Html | None:
    """Return the section on the front of a study with several objectives."""
    done = [t for t in found.trials if t.values and t.state == "complete"]
    first = {t.weights_digest: t for t in reversed(done)}.values()  # equal weights once
    values = {t.number: t.values for t in sorted(first, key=lambda t: t.number)}
    if not values:
        return None
    names = [entry["name"] for entry in found.about["score"]["entries"]]
    best = set(front(values))
    pairs = list(islice(combinations(range(len(names)), 2), MOST_PAIRS))
    charts = [_pair(found, values, best, names, pair) for pair in pairs]
    same: dict[tuple[float, ...], list[int]] = {}
    for n in sorted(best):
        same.setdefault(values[n], []).append(n)
    rows = [
        (_named(found, numbers), *(number(x) for x in own))
        for own, numbers in sorted(same.items(), reverse=True)
    ]
    said = (
        f"{counted(len(best), 'candidate')} that no other beats in every objective, on the search "
        "items; higher is better, so what is to be low is negative. With noisy scores some are "
        "there by luck."
    )
    signs = [("s-winner", "winner"), ("s-finalist", "on the front"), ("s-searched faint", "others")]
    return section(
        "Pareto front",
        "front",
        figure(
            "Objectives against each other",
            said,
            element("div", *charts, class_="blocks two"),
            legend(signs),
        ),
        table(("candidate", *names), rows),
        note(f"Only the first {MOST_PAIRS} pairs are drawn.") if len(names) > 4 else None,
    )


def _named(found: Found, numbers: Sequence[int]) -> str:
    """Return how trials with the same values are called."""
    more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
    return f"{label(found.trials[numbers[0]])}{more}"


def _pair(
    found: Found,
    values: Mapping[int, Sequence[float]],
    best: set[int],
    names: Sequence[str],
    pair: tuple[int, int],
) -> Html:
    a, b = pair
    chart = Chart(
        f"{names[b]} against {names[a]}",
        Axis.of([x[a] for x in values.values()], f"{names[a]} →"),
        Axis.of([x[b] for x in values.values()], f"↑ {names[b]}"),
        300,
    )
    winner = None if found.winner is None else found.winner.number
    for n in sorted(values, key=lambda n: (n == winner, n in best)):
        look = "s-winner" if n == winner else "s-finalist" if n in best else "s-searched faint"
        chart.dot(
            (values[n][a], values[n][b]), look, label(found.trials[n]), size=5 if n == winner else 3
        )
    edge = sorted(front({n: (x[a], x[b]) for n, x in values.items()}), key=lambda n: values[n][a])
    chart.line([(values[n][a], values[n][b]) for n in edge], "s-finalist")
    return element("div", chart.html())

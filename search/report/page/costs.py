"""What a study cost: seconds by what they went to, items, and money where a price is known."""

from __future__ import annotations

from collections.abc import Mapping

from search.report.page.found import Found
from search.report.page.html import Html, element, facts, join, note, section
from search.report.page.numbers import count, number, percent, seconds

PARTS = {
    "build": "building candidates",
    "model": "running models",
    "gradient": "gradients",
    "other": "all else",
}


def costs(found: Found) -> Html | None:
    """Return the section on costs."""
    spent = _seconds(found)
    if not spent:
        return None
    total = sum(spent.values())
    shares = {name: x / total if total else 0.0 for name, x in spent.items()}
    bar = [
        element("i", class_=f"c{i % 4}", style=f"width:{100 * share:.2f}%")
        for i, share in enumerate(shares.values())
    ]
    words = "seconds by what they were spent on"
    rows = [
        (join([element("i", class_=f"key c{i % 4}"), name]), _share(x, shares[name]))
        for i, (name, x) in enumerate(spent.items())
    ]
    return section(
        "Costs",
        "costs",
        element("div", *bar, class_="split", role="img", aria_label=words),
        facts([*rows, ("all together", seconds(total)), *_items(found), *_money(found, total)]),
        note(
            "Seconds of building and scoring candidates, those of the last pools included once "
            "the study is finished; opening models and waiting are not among them."
        ),
    )


def _share(spent: float, share: float) -> str:
    return f"{seconds(spent)} ({percent(share)})"


def _items(found: Found) -> list[tuple[str, str]]:
    if found.report is None:
        return [("items evaluated", count(sum(t.cost for t in found.trials)))]
    cost = found.report.cost
    saved = cost.items_full - cost.items_scored
    more = f"{count(cost.items_full)} ({count(saved)} saved)" if saved > 0 else ""
    rows = [("items evaluated", count(cost.items_scored)), ("without races and reuse", more)]
    race = found.report.race
    if race is not None:
        rows.append(("of these saved by races", count(race.items_saved)))
    if cost.workers is not None and cost.busy is not None:
        rows.append(("workers", f"{cost.workers}, at work {percent(cost.busy)} of the time"))
    return [row for row in rows if row[1]]


def _money(found: Found, total: float) -> list[tuple[str, str]]:
    if found.price is None:
        return []
    return [("money", f"{number(found.price * total / 3600, 2)} at {found.price:g} an hour")]


def _seconds(found: Found) -> dict[str, float]:
    if found.report is not None:
        given: Mapping[str, float] = found.report.cost.seconds
    else:
        sums: dict[str, float] = {}
        for trial in found.trials:
            for key, x in trial.search.seconds.items():
                sums[key] = sums.get(key, 0.0) + x
        given = sums
    return {PARTS.get(key, key): x for key, x in given.items()}

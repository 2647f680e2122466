"""A comparison of two studies as a table for people."""

from __future__ import annotations

from search.report.compare import Comparison
from search.report.summary import Difference
from search.views.tables import numbers, table
from search.views.terminal import OUT


def comparison(found: Comparison) -> None:
    """Print what two studies show of each other's winners, task by task and together."""
    a, b = found.a, found.b
    cells = [
        (x.task, str(x.items), str(x.clusters), f"{x.a:.3f}", f"{x.b:.3f}", *_limits(x.difference))
        for x in found.tasks
    ]
    whole = found.aggregate.replace("_", " ").replace("apart", "mean")
    cells.append((whole, str(found.items), str(found.clusters), "", "", *_limits(found.difference)))
    columns = ("task", "items", "clusters", a.name, b.name, "better by", "95 % interval")
    title = f"{a.name}, trial {a.trial}, against {b.name}, trial {b.trial}"
    OUT.print(numbers(table(title, columns, cells), words=1))
    for sentence in found.sentences:
        OUT.print(sentence, soft_wrap=True)
    for task, why in found.apart.items():
        OUT.print(f"{task} is not compared: {why}.", soft_wrap=True)
    for note in found.notes:
        OUT.print(f"Note: {note}.", soft_wrap=True)


def _limits(found: Difference) -> tuple[str, str]:
    return f"{found.estimate:+.3f}", f"{found.low:.3f} to {found.high:.3f}"

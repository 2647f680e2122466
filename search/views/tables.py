"""Tables for people, on stdout."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from search.run.check import Checked
from search.scoring.pareto import front
from search.spec.study_file import StudySpec
from search.storage.study_record import Record

# Text is printed as it is: names, reasons and messages are full of [brackets] and :colons:.
WIDTH = None if sys.stdout.isatty() else 140
OUT = Console(highlight=False, markup=False, emoji=False, width=WIDTH)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table."""
    made = Table(*columns, title=title)
    for row in rows:
        made.add_row(*row)
    return made


def numbers(made: Table, *, words: int) -> Table:
    """Put all columns but the first ``words`` of a table to the right, and its last row in bold."""
    for column in made.columns[words:]:
        column.justify = "right"
    made.rows[-1].style = "bold"
    return made


def checked(found: Checked) -> None:
    """Print what a file would do, and on stderr what is unwise about it."""
    for key, value in found.facts.items():
        print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def verdict(row: Mapping[str, Any]) -> None:
    """Print whether a trial was reproduced, and if not, why."""
    why = f": {row['reason']}" if row.get("reason") else ""
    changed = ", ".join(row.get("changed_parents", []))
    parents = f"; changed parents: {changed}" if changed else ""
    print(f"trial {row['number']}: {row['verdict']}{why}{parents}")


def trials(spec: StudySpec, record: Record) -> None:
    """Print a study's trials; with several objectives, which of them no other beats."""
    best = front({t.number: t.values for t in record.trials if t.values})
    cells = [
        (
            str(t.number),
            t.baseline or "",
            t.state,
            "" if t.value is None else f"{t.value:.4f}",
            "" if t.stderr is None else f"{t.stderr:.4f}",
            *([" ".join(f"{x:.4f}" for x in t.values) + " *" * (t.number in best)] if best else []),
            str(t.items),
            t.weights_digest,
        )
        for t in record.trials
    ]
    objectives = ("objectives (* on the front)",) if best else ()
    columns = ("trial", "baseline", "state", "value", "stderr", *objectives, "items", "weights")
    by = ", ".join(dict.fromkeys(score.steer for score in spec.scores if score.steer))
    OUT.print(table(f"{record.name}, values by {by}" if by else record.name, columns, cells))


def report(summary: Mapping[str, Any]) -> None:
    """Print a finished study: every candidate on the report pool, and the winner's differences."""
    pools, winner = summary["pools"], summary["winner"]
    aggregate = summary["score"]["aggregate"].replace("_", " ").replace("apart", "mean")
    shown = entry_kinds(summary)
    cells = [
        (
            row["name"],
            str(row["trial"]),
            f"{row['report']['mean']:.3f}",
            f"{row['report']['low']:.3f} to {row['report']['high']:.3f}",
            *(f"{row['report'][kind][name]['mean']:.3f}" for name, kind in shown.items()),
        )
        for row in summary["candidates"]  # the winner is the last
    ]
    title = f"{summary['study']}: scores on {pools['report']} report items"
    columns = ("candidate", "trial", aggregate, "95 % interval", *shown)
    OUT.print(numbers(table(title, columns, cells), words=1))
    names = {"best_parent": summary["best_parent"], "uniform": "uniform", "base": "base"}
    for key, name in names.items():
        if f"minus_{key}" in winner:
            found = winner[f"minus_{key}"]
            OUT.print(
                f"winner minus {name}: {found['estimate']:+.3f}, 95 % interval "
                f"[{found['low']:+.3f}, {found['high']:+.3f}], paired over {pools['report']} items"
            )
    for notice in summary["notices"]:
        OUT.print(notice)
    search, select = winner["search"]["mean"], winner["select"]["mean"]
    metrics = ", ".join(dict.fromkeys(winner["search"].get("steered_by", {}).values()))
    by = f" by {metrics}, another unit," if metrics else ""
    OUT.print(
        f"The winner scored {search:.3f}{by} on the {pools['search']} items that steered the "
        f"search and {select:.3f} on the {pools['select']} that chose it;\n"
        f"{winner['report']['mean']:.3f} on the report items is the number that holds."
    )


def entry_kinds(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the entries of the study's score, and whether each is a group or a task."""
    groups = summary["winner"]["report"].get("groups", {})
    names = [entry["name"] for entry in summary["score"]["entries"]]
    return {name: "groups" if name in groups else "tasks" for name in names}

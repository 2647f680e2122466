"""Tables for people, on stdout."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from merge_core.printable import printable
from search.draft.write import Written
from search.report.listing import Listing
from search.report.so_far import SoFar
from search.report.summary import Report
from search.run.base_scores import BaseScores
from search.run.caches import Cache
from search.run.check import Checked
from search.run.dry_run import Costs
from search.run.first_items import FirstItem
from search.trial.trial import Trial
from search.views.terminal import OUT, duration

KNOBS = 8  # columns of a table; more would have no room
SHOWN = 800  # characters of a text of an item
FEW = 10  # names of a list that are shown of twice as many


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table; control characters are written out here, so that columns have their room."""
    made = Table(*map(printable, columns), title=printable(title))
    for row in rows:
        made.add_row(*map(printable, row))
    return made


def numbers(made: Table, *, words: int) -> Table:
    """Put all columns but the first ``words`` of a table to the right, and its last row in bold."""
    for column in made.columns[words:]:
        column.justify = "right"
    made.rows[-1].style = "bold"
    return made


def checked(found: Checked, measured: Costs | None = None) -> None:
    """Print what a file would do, and what it costs where that was measured."""
    for key, value in found.facts.items():
        shown = [f"{k} {size(x)}" for k, x in value.items()] if isinstance(value, dict) else value
        print(f"{key}: {_listed(shown) if isinstance(shown, list) else shown}")
    for task, items in found.first.items():
        print(f"first items of {task}:")
        for one in items:
            _first_item(one)
    if measured is not None:
        costs(measured)


def _listed(names: Sequence[str]) -> str:
    """Return names with commas; of many the first ones."""
    if len(names) <= 2 * FEW:
        return ", ".join(names)
    return f"{', '.join(names[:FEW])}, and {len(names) - FEW} more (all: --json)"


def _first_item(one: FirstItem) -> None:
    """Print an item as a model will read it; texts stand as Python writes them."""
    prompt = "not said by the task" if one.prompt is None else _cut(one.prompt)
    print(f"  {one.id}\n    prompt  {prompt}")
    if any(one.right):
        print(f"    right   {' or '.join(map(_cut, one.right))}")
    if one.others:
        print(f"    wrong   {', '.join(map(_cut, one.others))}")
    if one.unknown:
        print(f"    right   not known: {one.unknown}")
    if one.stop is not None:
        ends = [*map(repr, one.stop), "the end token"]
        print(f"    stop    {', '.join(ends)}, or {one.most} tokens")


def _cut(text: str) -> str:
    """Return a text as Python writes it; of a long one the beginning and the end."""
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN // 4]} … {text[-3 * SHOWN // 4 :]}")


def costs(found: Costs) -> None:
    """Print what a study costs by its dry run."""
    several, took = found.candidates, {key: duration(x) for key, x in found.seconds.items()}
    each = [f"{task} {1000 * seconds:.3g} ms" for task, seconds in found.per_item.items()]
    items = ", ".join(f"{count} {pool}" for pool, count in found.items.items())
    with_ = f", with {found.workers} workers" if found.workers > 1 else ""
    step = f"; a step by gradient, at most {found.steps}: {found.seconds['step']:.3g} s"
    print(
        f"a build: {found.build:.3g} s, the first {found.first_build:.3g} s\n"
        f"an item: {', '.join(each)}\n"
        f"items of a candidate: {items}; at most {found.items_scored} scored in all\n"
        f"a trial: {found.seconds['trial']:.3g} s{step if found.steps else ''}\n"
        f"in all{with_}: about {took['all']}: {several.baselines} baselines {took['baselines']}, "
        f"{several.trials} trials {took['search']}, {several.select} candidates on select items "
        f"{took['select']}, {several.report} on report items and {several.again} on "
        f"some of them {took['report']}\n"
        f"peak of memory: {', '.join(f'{k} {size(x)}' for k, x in found.memory.items())}"
    )
    if found.base is not None:
        _base(found.base)


def _base(found: BaseScores) -> None:
    """Print what the base scores, and says to the first items."""
    for task, score in found.scores.items():
        items, unit = found.items[task], found.units[task]
        print(f"{found.name} on {items} items of {task}: {score:.3f} {unit}")
        for one in found.answers.get(task, ()):
            print(f"    prompt  {_cut(one.prompt)}\n    right   {_cut(one.right)}")
            print(f"    said    {_cut(one.said)}")
    for line in found.warnings:
        print(f"warning: {line}", file=sys.stderr)


def size(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def written(found: Written) -> None:
    """Print which files a command wrote, what is not in them, and what comes next."""
    for file in found.files:
        print(f"{file}: written")
    for key, text in found.notes.items():
        print(f"{key}: {text}")
    dimensions = found.facts.get("dimensions")
    many = "" if dimensions is None else f" of {dimensions} numbers"
    print(f"next: mergetune run {found.files[0]}  (a search{many}, {found.facts['trials']} trials)")


def cache(found: Cache, *, cleared: bool) -> None:
    """Print what is in a cache, or was in one that is cleared now."""
    most = "" if found.bound is None else f" of at most {found.bound / 2**30:.1f} GiB"
    print(
        f"{found.place}: {found.holds}: {found.entries} entries, {found.bytes / 2**20:.1f} MiB"
        f"{most}{', cleared' if cleared else ''}"
    )


def verdict(row: Mapping[str, Any]) -> None:
    """Print whether a trial was reproduced, and if not, why."""
    why = f": {row['reason']}" if row.get("reason") else ""
    causes = {
        f"changed {kind}": row.get(f"changed_{kind}", []) for kind in ("parents", "tasks", "files")
    }
    causes |= {
        f"tensors of {parent}": tensors
        for parent, tensors in row.get("changed_tensors", {}).items()
    }
    causes["environment"] = [
        f"{x['key']} was {x['was']}, is {x['is']}" for x in row.get("environment", ())
    ]
    told = "".join(f"; {kind}: {', '.join(found)}" for kind, found in causes.items() if found)
    print(f"trial {row['number']}: {row['verdict']}{why}{told}")


def verdicts(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print how many trials were reproduced."""
    same = sum(row["verdict"] == "identical" for row in rows)
    print(f"{same} of {len(rows)} trials identical")


def searched_again(found: Mapping[str, Any]) -> None:
    """Print whether a search that was done again had the same trials."""
    print(f"{found['same']} of {found['trials']} trials are the same, in order")
    if found["first"] is not None:
        verdict({**found, **found["first"]})


def trials(found: Listing, by: str = "", sentences: Sequence[str] = ()) -> None:
    """Print trials; with several objectives, which of them no other beats.

    Args:
        found: The trials.
        by: Metrics that steer the search in place of the tasks' own, in words.
        sentences: What they come to.
    """
    knobs = found.knobs if len(found.knobs) <= KNOBS else ()
    cells = [
        (
            str(t.number),
            t.baseline or "",
            t.state,
            "" if t.value is None else f"{t.value:.4f}",
            "" if t.stderr is None else f"{t.stderr:.4f}",
            *([_objectives(t, found)] if found.front else []),
            str(t.cost if t.gradient else t.search.items),
            *(_number(t.params.get(name)) for name in knobs),
            t.weights_digest,
        )
        for t in found.trials
    ]
    objectives = ("objectives (* on the front)",) if found.front else ()
    columns = ("trial", "baseline", "state", "value", "stderr", *objectives, "items", *knobs)
    title = f"{found.study}, values by {by}" if by else found.study
    made = table(title, (*columns, "weights"), cells)
    for column in made.columns:
        column.overflow = "fold"  # names are whole
    OUT.print(made)
    if len(found.trials) < found.of:
        OUT.print(f"{len(found.trials)} of {found.of} trials")
    if len(found.knobs) > KNOBS:
        OUT.print(
            f"{len(found.knobs)} knobs are too many for a table: --knobs PATTERN chooses some, "
            "--csv FILE (- for here) and --json have all",
            soft_wrap=True,
        )
    for sentence in sentences:
        OUT.print(sentence, soft_wrap=True)


def _objectives(trial: Trial, found: Listing) -> str:
    return " ".join(f"{x:.4f}" for x in trial.values) + " *" * (trial.number in found.front)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def so_far(found: SoFar) -> None:
    """Print a study that is not finished: its best trial beside the base, parents and uniform."""
    shown = [(name, t) for name, t in found.candidates.items() if found.best is not t]
    shown += [] if found.best is None else [("best so far", found.best)]
    cells = [(name, str(t.number), f"{t.value:.4f}", _number(t.stderr)) for name, t in shown]
    if cells:
        title = f"{found.study}: scores on {found.items} search items, so far"
        OUT.print(numbers(table(title, ("candidate", "trial", "value", "stderr"), cells), words=1))
    for sentence in found.sentences():
        OUT.print(sentence, soft_wrap=True)


def report(found: Report) -> None:
    """Print a finished study: every candidate on the report pool, and the winner's differences."""
    pools, winner = found.pools, found.winner
    aggregate = found.score["aggregate"].replace("_", " ").replace("apart", "mean")
    cells = [
        (
            row.name,
            str(row.trial),
            f"{row.report.mean:.3f}",
            f"{row.report.low:.3f} to {row.report.high:.3f}",
            *(f"{row.report.of(name).mean:.3f}" for name in found.entries),
        )
        for row in found.candidates  # the winner is the last
    ]
    title = f"{found.study}: scores on {pools['report']} report items"
    columns = ("candidate", "trial", aggregate, "95 % interval", *found.entries)
    OUT.print(numbers(table(title, columns, cells), words=1))
    for sentence in (*found.sentences, *(found.looks.why if found.looks else ())):
        OUT.print(sentence, soft_wrap=True)
    for notice in found.notices:
        OUT.print(notice)
    if found.ended is not None and found.ended.by != "trials":
        OUT.print(f"The search ended: {found.ended.text}.")
    metrics = ", ".join(dict.fromkeys((winner.search.steered_by or {}).values()))
    by = f" by {metrics}, another unit," if metrics else ""
    OUT.print(
        f"The winner scored {winner.search.mean:.3f}{by} on the {pools['search']} items that "
        f"steered the search and {winner.select.mean:.3f} on the {pools['select']} that chose it;\n"
        f"{winner.report.mean:.3f} on the report items is the number that holds."
    )
    if found.race is not None:
        OUT.print(
            f"Racing left {found.race.items_saved:,} search items unseen, of candidates that were "
            f"not better than the best by {found.race.margin:g}."
        )

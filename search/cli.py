"""The command line: parse, call one function, print, exit (0 done, 1 our error, 2 bad usage)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from merge_core.errors import MergeError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Searches merge recipes for language models.",
)
Study = Annotated[str, typer.Argument(help="A study file, its folder, or a storage URL.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")]


def _load_plugins(files: list[Path] | None) -> list[Path]:
    if files:
        from evaluators.plugin_file import load

        for file in files:
            load(file)
    return files or []


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", callback=_load_plugins, help="A Python file of yours that declares evaluators."
    ),
]
Out = Annotated[Path, typer.Argument(help="The model folder to make.")]


def main() -> None:
    """Run the command line; our own errors are one line each, without a traceback."""
    from search.views.tables import hush_libraries

    hush_libraries()
    try:
        app()
    except MergeError as error:
        print(f"mergetune: {error}" if "\n" not in str(error) else str(error), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("mergetune: stopped; settled trials are stored", file=sys.stderr)
        sys.exit(1)


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=1))


@app.command()
def check(
    study: Annotated[Path, typer.Argument(help="A study file, its folder, or a recipe file.")],
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Read a study or a recipe and say what it would do, or all that is wrong with it."""
    from search.run.check import check as checked

    found = checked(study)
    if as_json:
        _print_json(found.facts)
        return
    for key, value in found.facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"{key}: {shown}")
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="A study file or its folder.")],
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Start a study, or resume it, and report its winner."""
    from search.run.study import run as run_whole
    from search.views import tables

    summary = run_whole(study, tables.Live(), tables.Stopper())
    if summary is None:
        print("stopped; run it again to go on", file=sys.stderr)
        raise typer.Exit(1)
    if as_json:
        _print_json(summary)
    else:
        tables.report(summary)


@app.command()
def trials(study: Study, plugin: Plugins = None, as_json: Json = False) -> None:
    """List a study's trials."""
    from search.scoring.pareto import front
    from search.storage.locate import open_study
    from search.views import tables

    spec, record = open_study(study)
    best = front({t.number: t.values for t in record.trials if t.values})
    if as_json:
        rows = [trial.row() for trial in record.trials]
        _print_json([row | {"front": row["number"] in best} if best else row for row in rows])
        return
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
    tables.rows(f"{record.name}, values by {by}" if by else record.name, columns, cells)


@app.command()
def best(study: Study, plugin: Plugins = None, as_json: Json = False) -> None:
    """Show a finished study's report and its winning recipe."""
    from search.storage.locate import open_study, winner
    from search.views import tables

    _, record = open_study(study)
    trial, summary = winner(record)
    if as_json:
        _print_json(summary["winner"] | {"recipe": trial.recipe.plain()})
        return
    tables.report(summary)
    print(f"\n{trial.recipe.to_yaml()}", end="")


@app.command()
def inspect(
    recipe: Annotated[Path, typer.Argument(help="A recipe in the mergekit dialect.")],
    html: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Also write heat maps into this file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a recipe's task vectors and what its density keeps, before any merge."""
    from merge_core.api import planned
    from merge_core.atomic_write import write_whole
    from merge_core.inspect.report import inspect as inspected
    from search.views import inspection_html, inspection_table

    found = inspected(planned(recipe))
    if html is not None:
        write_whole(html, inspection_html.page(found))
    if as_json:
        _print_json(found.plain())
    else:
        inspection_table.show(found)


@app.command()
def merge(
    recipe: Annotated[Path, typer.Argument(help="A recipe in the mergekit dialect.")],
    out: Out,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Merge a recipe into a model folder."""
    from merge_core.api import merge as merge_folder

    digest = merge_folder(recipe, out, overwrite=overwrite)
    if as_json:
        _print_json({"out": str(out), "weights_digest": digest})
    else:
        print(f"{out}: weights digest {digest}")


@app.command()
def export(
    study: Study,
    out: Out,
    trial: Annotated[str, typer.Option(help="A trial's number, or best.")] = "best",
    overwrite: Overwrite = False,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Write the model folder of one trial."""
    from search.report import files as results
    from search.storage.locate import chosen, open_study
    from search.trial.workbench import Workbench

    spec, record = open_study(study)
    (one,) = chosen(record, trial, several=False)
    digest = results.export(Workbench(spec, record.about), one, out, overwrite=overwrite)
    if as_json:
        _print_json({"out": str(out), "trial": one.number, "weights_digest": digest})
    else:
        print(f"{out}: trial {one.number}, weights digest {digest}")


@app.command()
def reproduce(
    study: Study,
    trial: Annotated[str, typer.Option(help="A trial's number, best, or all.")] = "all",
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Rebuild trials from the database and compare weights and item scores."""
    from search.report.reproduce import reproduce as reproduced
    from search.storage.locate import chosen, open_study
    from search.trial.workbench import Workbench

    spec, record = open_study(study)
    numbers = [t.number for t in chosen(record, trial)]
    rows = []
    for row in reproduced(record, Workbench(spec, record.about), numbers):
        rows.append(row)
        if not as_json:
            changed = ", ".join(row.get("changed_parents", []))
            why = f": {row['reason']}" if row.get("reason") else ""
            print(
                f"trial {row['number']}: {row['verdict']}{why}"
                f"{f'; changed parents: {changed}' if changed else ''}"
            )
    if as_json:
        _print_json(rows)
    if any(row["verdict"] != "identical" for row in rows):
        raise typer.Exit(1)


@app.command()
def methods(as_json: Json = False) -> None:
    """List the merge methods and their parameters."""
    from search.views import plugin_table

    plugin_table.methods(as_json)


@app.command()
def evaluators(plugin: Plugins = None, as_json: Json = False) -> None:
    """List the evaluators and the keys of their score entries."""
    from search.views import plugin_table

    plugin_table.evaluators(as_json)


if __name__ == "__main__":
    main()

"""The command line: parse, call one function, print, exit (0 done, 1 our error, 2 bad usage)."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from merge_core import api
from merge_core.atomic_write import write_whole
from merge_core.errors import MergeError, ParameterError
from merge_core.inspect import report as inspection
from search.draft import evolve, from_recipe
from search.draft.init import Given
from search.draft.init import init as first_study
from search.draft.tasks import Asked
from search.options import (
    Asks,
    Config,
    DryRun,
    Files,
    Hours,
    Html,
    InAll,
    IncludePath,
    Inspected,
    Json,
    Layers,
    More,
    NoTasks,
    NotOpened,
    Out,
    Overwrite,
    Plugins,
    Priors,
    SendKeys,
    Strict,
    Study,
    StudyOut,
    Texts,
    Trials,
    TrustTasks,
)
from search.report import files
from search.report import reproduce as reproduction
from search.report.cards import card_result
from search.report.summary import Report
from search.report_command import report
from search.run import caches
from search.run import check as checks
from search.run import dry_run as dry_runs
from search.run import study as studies
from search.run.inspect_layers import inspect_layers
from search.run.unforeseen import traceback_kept
from search.scoring.pareto import front
from search.storage.locate import chosen, open_study, winner
from search.trial.budget import Change
from search.trial.builder import Builder
from search.trial.worker import Worker
from search.views import plugin_table, tables
from search.views.answers import answer as _answer
from search.views.answers import made as _made
from search.views.answers import warn as _warn
from search.views.answers import written as _written
from search.views.inspections import Shown
from search.views.progress_line import ProgressLine, Stopper, hush_libraries
from search.views.terminal import printable_output

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Searches merge recipes for language models.",
)
HERE = Path("study.yaml")


@printable_output()
def main() -> None:
    """Run the command line; our own errors are one line each, without a traceback."""
    hush_libraries()
    try:
        with traceback_kept():
            app(prog_name="mergetune")
    except MergeError as error:
        print(f"mergetune: {error}" if "\n" not in str(error) else str(error), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("mergetune: stopped; settled trials are stored", file=sys.stderr)
        sys.exit(1)


@app.command()
def check(
    study: Annotated[Path, typer.Argument(help="A study file, its folder, or a recipe file.")],
    strict: Strict = False,
    no_tasks: NoTasks = False,
    dry_run: DryRun = False,
    plugin: Plugins = None,
    trust_tasks: TrustTasks = False,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Read a study or a recipe and say what it would do, or all that is wrong with it."""
    if dry_run and no_tasks:
        raise typer.BadParameter("--dry-run scores tasks; omit --no-tasks")
    found = checks.check(study, strict=strict, tasks=not no_tasks)
    costs = dry_runs.dry_run(study) if dry_run else None
    more = {} if costs is None else {"dry_run": costs.plain()}
    _answer(as_json, found.facts | more, lambda: tables.checked(found, costs))
    for line in found.warnings:
        _warn(line)


@app.command()
def init(
    models: Annotated[list[str], typer.Argument(help="What is merged: folders or hub ids.")],
    base: Annotated[
        str | None, typer.Option("--base", help="The model that all others were tuned from.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="A merge method; see `mergetune methods`.")
    ] = None,
    task: Asks = None,
    file: Files = None,
    include_path: IncludePath = None,
    trials: Trials = 100,
    out: StudyOut = HERE,
    no_tasks: NotOpened = False,
    trust_tasks: TrustTasks = False,
    as_json: Json = False,
) -> None:
    """Write a first study file for some models and tasks, with comments that say why."""
    asked = Asked(task or (), file or (), include_path)
    given = Given(models, base, method, trials)
    _written(first_study(given, asked, out, tasks=not no_tasks), as_json)


@app.command()
def import_evolve(
    config: Annotated[Path, typer.Argument(help="A configuration of mergekit-evolve.")],
    include_path: IncludePath = None,
    trials: Trials = 100,
    layers: Annotated[
        int | None, typer.Option("--layers", min=1, help="Of models that are not on this disk.")
    ] = None,
    out: StudyOut = HERE,
    no_tasks: NotOpened = False,
    trust_tasks: TrustTasks = False,
    as_json: Json = False,
) -> None:
    """Turn a mergekit-evolve configuration into a study file, and say what is not in it."""
    how = evolve.How(trials, layers, include_path)
    _written(evolve.import_evolve(config, how, out, tasks=not no_tasks), as_json)


@app.command()
def import_mergekit(
    recipe: Annotated[Path, typer.Argument(help="A recipe in the mergekit dialect.")],
    task: Asks = None,
    file: Files = None,
    include_path: IncludePath = None,
    trials: Trials = 100,
    out: StudyOut = HERE,
    no_tasks: NotOpened = False,
    trust_tasks: TrustTasks = False,
    as_json: Json = False,
) -> None:
    """Turn a recipe into a study file that searches around its numbers; they are a baseline."""
    asked = Asked(task or (), file or (), include_path)
    made = from_recipe.import_mergekit(recipe, asked, trials, out, tasks=not no_tasks)
    _written(made, as_json)


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="A study file or its folder.")],
    trials: InAll = None,
    more: More = None,
    hours: Hours = None,
    prior: Priors = None,
    dry_run: DryRun = False,
    plugin: Plugins = None,
    trust_tasks: TrustTasks = False,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Start a study, or resume it, and report its winner; the budget given here is this run's."""
    try:
        change = Change.of(trials=trials, more=more, hours=hours)
    except ParameterError as error:
        raise typer.BadParameter(str(error)) from error
    if dry_run:
        costs = dry_runs.dry_run(study, change)
        _answer(as_json, costs.plain(), lambda: tables.costs(costs))
        return
    with ProgressLine() as progress:
        report = studies.run(study, progress, Stopper(), change, prior or ())
    if report is None:
        print("stopped; run it again to go on", file=sys.stderr)
        raise typer.Exit(1)
    _answer(as_json, report.to_json(), lambda: tables.report(report))


@app.command()
def trials(
    study: Study, plugin: Plugins = None, send_key: SendKeys = None, as_json: Json = False
) -> None:
    """List a study's trials."""
    spec, record = open_study(study)
    best = front({t.number: t.values for t in record.trials if t.values})
    rows = [t.row() | ({"front": t.number in best} if best else {}) for t in record.trials]
    _answer(as_json, rows, lambda: tables.trials(spec, record))


@app.command()
def best(
    study: Study, plugin: Plugins = None, send_key: SendKeys = None, as_json: Json = False
) -> None:
    """Show a finished study's report and its winning recipe."""
    _, record = open_study(study)
    trial, summary = winner(record)
    data = summary["winner"] | {"recipe": trial.recipe.plain()}
    _answer(as_json, data, lambda: tables.report(Report.from_json(summary)))
    if not as_json:
        print(f"\n{trial.recipe.to_yaml()}", end="")


app.command()(report)


@app.command()
def inspect(
    what: Inspected,
    layers: Layers = False,
    texts: Texts = None,
    html: Html = None,
    plugin: Plugins = None,
    trust_tasks: TrustTasks = False,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Measure a recipe's task vectors and what its density keeps, or which layers matter."""
    if layers or texts is not None:
        shown = Shown.of(inspect_layers(what, texts, _warn))
    else:
        shown = Shown.of(inspection.inspect(api.planned(Path(what), tell=_warn)))
    if html is not None:
        write_whole(html, shown.page())
    _answer(as_json, shown.data, shown.show)


@app.command()
def merge(
    recipe: Annotated[Path, typer.Argument(help="A recipe in the mergekit dialect.")],
    out: Out,
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Merge a recipe into a model folder."""
    _made(api.merge(recipe, out, tell=_warn, overwrite=overwrite, strict=strict), out, as_json)


@app.command()
def moe(
    config: Config,
    out: Out,
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Make a mixture of experts of dense models."""
    _made(api.moe(config, out, tell=_warn, overwrite=overwrite, strict=strict), out, as_json)


@app.command()
def export(
    study: Study,
    out: Out,
    trial: Annotated[str, typer.Option(help="A trial's number, or best.")] = "best",
    overwrite: Overwrite = False,
    plugin: Plugins = None,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Write the model folder of one trial."""
    spec, record = open_study(study)
    (one,) = chosen(record, trial, several=False)
    result = card_result(record, one)
    builder = Builder(spec, record.about)
    digest = files.export(builder, one, out, overwrite=overwrite, result=result)
    data = {"out": str(out), "trial": one.number, "weights_digest": digest}
    _answer(as_json, data, lambda: print(f"{out}: trial {one.number}, weights digest {digest}"))


@app.command()
def reproduce(
    study: Study,
    trial: Annotated[str, typer.Option(help="A trial's number, best, or all.")] = "all",
    plugin: Plugins = None,
    trust_tasks: TrustTasks = False,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Rebuild trials from the database and compare weights and item scores."""
    spec, record = open_study(study)
    numbers = [t.number for t in chosen(record, trial)]
    worker, rows = Worker(spec.data, spec.folder, record.about), []
    for row in reproduction.reproduce(record, worker, numbers):
        rows.append(row)
        if not as_json:
            tables.verdict(row)
    _answer(as_json, rows, lambda: None)  # else each is shown when it is known
    if any(row["verdict"] != "identical" for row in rows):
        raise typer.Exit(1)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Say all about this one.")] = None,
    as_json: Json = False,
) -> None:
    """List the merge methods and their parameters."""
    if name is None:
        plugin_table.methods(as_json)
    else:
        plugin_table.one_method(name, as_json)


@app.command()
def evaluators(plugin: Plugins = None, as_json: Json = False) -> None:
    """List the evaluators and the keys of their score entries."""
    plugin_table.evaluators(as_json)


@app.command()
def cache(
    study: Annotated[
        Path | None, typer.Argument(help="A study, for its engine.cache, or such a folder.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove what is in it.")] = False,
    as_json: Json = False,
) -> None:
    """Show or clear what is kept on disk of a study's parents; without one, of model classes."""
    found = caches.cache(study, clear=clear)
    _answer(as_json, asdict(found), lambda: tables.cache(found, cleared=clear))

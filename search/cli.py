"""The command line: parse, call one function, print, exit.

Exit codes: 0 done, 1 our error or a search that was asked to end, 2 bad usage, 130 stopped at once.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from merge_core import api
from merge_core.atomic_write import write_whole
from merge_core.errors import MergeError
from merge_core.inspect import report as inspection
from search.commands.answers import answers
from search.commands.bundle import bundle
from search.commands.compare import compare
from search.commands.extract_lora import extract_lora
from search.commands.merge import merge, moe
from search.commands.report import report
from search.commands.reproduce import reproduce
from search.commands.run import run
from search.commands.schema import schema
from search.commands.stored import best, export, trials
from search.commands.tokensurgeon import tokensurgeon
from search.draft import evolve, from_recipe
from search.draft.init import Given
from search.draft.init import init as first_study
from search.draft.tasks import Asked
from search.options import (
    AllowCrimes,
    Asks,
    DeviceOrOwn,
    DryRun,
    Files,
    Html,
    IncludePath,
    Inspected,
    Json,
    Layers,
    NoTasks,
    NotOpened,
    Plugins,
    Quiet,
    SendKeys,
    Strict,
    StudyOut,
    Texts,
    Threads,
    Trials,
    TrustCode,
    TrustTasks,
)
from search.run import caches
from search.run import check as checks
from search.run import dry_run as dry_runs
from search.run.inspect_layers import inspect_layers
from search.run.unforeseen import traceback_kept
from search.views import plugin_table, tables
from search.views.answers import answer as _answer
from search.views.answers import hushed
from search.views.answers import warn as _warn
from search.views.answers import written as _written
from search.views.inspections import Shown
from search.views.progress_line import hush_libraries
from search.views.share_done import share_done
from search.views.stopping import end_in_order
from search.views.terminal import printable_output

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Searches merge recipes for language models.",
)
HERE = Path("study.yaml")
STOPPED = 130  # as shells have it of Ctrl-C


@printable_output()
def main() -> None:
    """Run the command line; our own errors are one line each, without a traceback."""
    hush_libraries()
    end_in_order()
    try:
        with traceback_kept():
            app(prog_name="mergetune")
    except MergeError as error:
        print(f"mergetune: {error}" if "\n" not in str(error) else str(error), file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as ended:  # typer makes an exit of the former
        if getattr(ended, "code", STOPPED) != STOPPED:
            raise
        print("mergetune: stopped at once; what is settled is stored", file=sys.stderr)
        sys.exit(STOPPED)


def _version(asked: bool) -> None:
    if asked:
        print(f"mergetune {version('mergetune')}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Say which version."),
    ] = False,
) -> None:
    """Do what is asked before any command."""


@app.command()
def check(
    study: Annotated[Path, typer.Argument(help="A study file, its folder, or a recipe file.")],
    strict: Strict = False,
    no_tasks: NoTasks = False,
    dry_run: DryRun = False,
    plugin: Plugins = None,
    trust_tasks: TrustTasks = False,
    allow_crimes: AllowCrimes = False,
    trust_remote_code: TrustCode = False,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Read a study or a recipe and say what it would do, or all that is wrong with it."""
    if dry_run and no_tasks:
        raise typer.BadParameter("--dry-run scores tasks; omit --no-tasks")
    found = checks.check(study, strict=strict, tasks=not no_tasks)
    costs = dry_runs.dry_run(study) if dry_run else None
    more = {} if costs is None else {"dry_run": costs.plain()}
    _answer(as_json, found.plain() | more, lambda: tables.checked(found, costs))
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
    allow_crimes: AllowCrimes = False,
    trust_remote_code: TrustCode = False,
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
    allow_crimes: AllowCrimes = False,
    trust_remote_code: TrustCode = False,
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
    allow_crimes: AllowCrimes = False,
    trust_remote_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Turn a recipe into a study file that searches around its numbers; they are a baseline."""
    asked = Asked(task or (), file or (), include_path)
    made = from_recipe.import_mergekit(recipe, asked, trials, out, tasks=not no_tasks)
    _written(made, as_json)


for command in (run, trials, best, answers, report, export, reproduce, bundle, compare):
    app.command()(command)


@app.command()
def inspect(
    what: Inspected,
    layers: Layers = False,
    texts: Texts = None,
    html: Html = None,
    threads: Threads = None,
    device: DeviceOrOwn = None,
    quiet: Quiet = False,
    plugin: Plugins = None,
    trust_tasks: TrustTasks = False,
    allow_crimes: AllowCrimes = False,
    trust_remote_code: TrustCode = False,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Measure a recipe's task vectors and what its density keeps, or which layers matter."""
    tell = hushed(quiet)
    if layers or texts is not None:
        with share_done("texts", quiet=quiet) as progress:
            found = inspect_layers(what, texts, tell, device=device, progress=progress)
        shown = Shown.of(found)
    else:
        plan = api.planned(Path(what), tell=tell)
        with share_done("measuring", in_bytes=True, quiet=quiet) as progress:
            shown = Shown.of(inspection.inspect(plan, device, progress))
    if html is not None:
        write_whole(html, shown.page())
    if as_json or not quiet:
        _answer(as_json, shown.data, shown.show)


for tool in (merge, moe, extract_lora, tokensurgeon, schema):
    app.command()(tool)


@app.command()
def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="Say all about this one.", autocompletion=plugin_table.names),
    ] = None,
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
    """Show or clear what is kept on disk of a study's parents; without one, your own cache."""
    found = [caches.cache(study, clear=clear)]
    data = asdict(found[0])
    if study is None:
        found.append(caches.unpacked(clear=clear))
        data["unpacked"] = asdict(found[1])

    def show() -> None:
        for one in found:
            tables.cache(one, cleared=clear)

    _answer(as_json, data, show)

"""`mergetune run`: start a study, or resume it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from merge_core.errors import ParameterError
from search.options import (
    AcceptEnvironment,
    AllowCrimes,
    Callbacks,
    DryRun,
    Force,
    Fresh,
    Hours,
    InAll,
    Json,
    More,
    Name,
    Plugins,
    Priors,
    Ray,
    RayCpus,
    SendKeys,
    TrustCode,
    TrustTasks,
    Workers,
)
from search.run import dry_run as dry_runs
from search.run import study as studies
from search.storage.locate import in_place
from search.trial.budget import Change
from search.views import tables
from search.views.answers import answer, note
from search.views.progress_line import ProgressLine
from search.views.stopping import Stopper
from search.workers.hire import Staff


def run(
    study: Annotated[Path, typer.Argument(help="A study file, its folder, or a bundle.")],
    trials: InAll = None,
    more: More = None,
    hours: Hours = None,
    prior: Priors = None,
    workers: Workers = None,
    ray: Ray = None,
    ray_cpus: RayCpus = None,
    accept_environment: AcceptEnvironment = False,
    force: Force = False,
    fresh: Fresh = False,
    callback: Callbacks = None,
    name: Name = None,
    dry_run: DryRun = False,
    plugin: Plugins = None,
    trust_tasks: TrustTasks = False,
    allow_crimes: AllowCrimes = False,
    trust_remote_code: TrustCode = False,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Start a study, or resume it, and report its winner; the budget given here is this run's."""
    try:
        change = Change.of(trials=trials, more=more, hours=hours)
        staff = Staff(workers, ray, ray_cpus)
    except ParameterError as error:
        raise typer.BadParameter(str(error)) from error
    study = Path(in_place(str(study), note))
    if dry_run:
        costs = dry_runs.dry_run(study, change, workers or 1)
        answer(as_json, costs.plain(), lambda: tables.costs(costs))
        return
    how: dict[str, Any] = {"accept": accept_environment, "force": force, "fresh": fresh}
    how |= {"name": name, "callbacks": callback or ()}
    with ProgressLine() as progress:
        report = studies.run(
            study,
            progress,
            Stopper(),
            change,
            prior or (),
            staff,
            **how,
        )
    if report is None:
        print("stopped; run it again to go on", file=sys.stderr)
        raise typer.Exit(1)
    answer(as_json, report.to_json(), lambda: tables.report(report))

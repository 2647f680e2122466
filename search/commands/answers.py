"""`mergetune answers`: what trials say to items, beside what is right."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal

import typer

from search.options import AllowCrimes, Json, Name, Plugins, SendKeys, Study, TrustCode, TrustTasks
from search.report.side_by_side import Wanted, side_by_side, usual_pool
from search.report.who import who
from search.storage.locate import in_place, open_study
from search.trial.worker import Worker
from search.views import said
from search.views.answers import answer, note

Pool = Literal["search", "select", "report"]


def answers(
    study: Study,
    trial: Annotated[
        str,
        typer.Option(help="A number, best, best_parent, best_simple, or a baseline's name."),
    ] = "best",
    against: Annotated[
        str | None,
        typer.Option(metavar="TRIAL", help="Another one beside it, named likewise."),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Of this task or group only; may be repeated.")
    ] = None,
    pool: Annotated[
        Pool | None,
        typer.Option(help="Whose items; else report, if it was scored there, or search."),
    ] = None,
    wrong: Annotated[
        bool, typer.Option("--wrong", help="Only items that the trial does not get right.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Items of each task; else at most 5.")
    ] = None,
    name: Name = None,
    plugin: Plugins = None,
    trust_tasks: TrustTasks = False,
    allow_crimes: AllowCrimes = False,
    trust_remote_code: TrustCode = False,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Show what a trial says to items of a study: prompt, what is right, answer, score."""
    _, record = open_study(study, name)
    trials = tuple(who(record, one) for one in (trial, against) if one is not None)
    if record.summary is None and "best" in (trial, against):
        number = who(record, "best").number
        note(f"the study is not finished: trial {number} is the best so far, by search items")
    wanted = Wanted(trials, pool or usual_pool(trials[0]), tuple(task or ()), wrong, limit)

    @cache
    def bench() -> Worker:
        """Open the study's models and tasks, which nothing needs that is stored."""
        spec, here = open_study(in_place(study, note), name)
        return Worker(spec.data, spec.folder, here.about)

    found = side_by_side(record, wanted, bench, note)
    answer(as_json, found.plain(), lambda: said.side_by_side(found))

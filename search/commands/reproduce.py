"""`mergetune reproduce`: build and score stored trials again."""

from __future__ import annotations

from typing import Annotated

import typer

from search.options import Json, Plugins, SendKeys, Study, TrustTasks
from search.report import reproduce as reproduction
from search.storage.locate import chosen, open_study
from search.trial.worker import Worker
from search.views import tables
from search.views.answers import answer


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
    answer(as_json, rows, lambda: None)  # else each is shown when it is known
    if any(row["verdict"] != "identical" for row in rows):
        raise typer.Exit(1)

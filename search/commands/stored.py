"""`mergetune trials`, `best` and `export`: what a study has found, from its storage."""

from __future__ import annotations

from typing import Annotated

import typer

from search.options import Json, Name, Out, Overwrite, Plugins, SendKeys, Study
from search.report import files
from search.report.cards import card_result
from search.report.summary import Report
from search.scoring.pareto import front
from search.storage.locate import chosen, in_place, open_study, winner
from search.trial.builder import Builder
from search.views import tables
from search.views.answers import answer, note


def trials(
    study: Study,
    name: Name = None,
    plugin: Plugins = None,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """List a study's trials."""
    spec, record = open_study(study, name)
    best = front({t.number: t.values for t in record.trials if t.values})
    rows = [t.row() | ({"front": t.number in best} if best else {}) for t in record.trials]
    answer(as_json, rows, lambda: tables.trials(spec, record))


def best(
    study: Study,
    name: Name = None,
    plugin: Plugins = None,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Show a finished study's report and its winning recipe."""
    _, record = open_study(study, name)
    trial, summary = winner(record)
    data = summary["winner"] | {"recipe": trial.recipe.plain()}
    answer(as_json, data, lambda: tables.report(Report.from_json(summary)))
    if not as_json:
        print(f"\n{trial.recipe.to_yaml()}", end="")


def export(
    study: Study,
    out: Out,
    trial: Annotated[str, typer.Option(help="A trial's number, or best.")] = "best",
    overwrite: Overwrite = False,
    name: Name = None,
    plugin: Plugins = None,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Write the model folder of one trial."""
    spec, record = open_study(in_place(study, note), name)
    (one,) = chosen(record, trial, several=False)
    result = card_result(record, one)
    builder = Builder(spec, record.about)
    digest = files.export(builder, one, out, overwrite=overwrite, result=result)
    data = {"out": str(out), "trial": one.number, "weights_digest": digest}
    answer(as_json, data, lambda: print(f"{out}: trial {one.number}, weights digest {digest}"))

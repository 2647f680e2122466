"""`mergetune trials`, `best` and `export`: what a study has found, from its storage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from merge_core.atomic_write import check_free, write_whole
from merge_core.kernels.threads import use
from merge_core.output.model_folder import Writing
from search.commands.write_folder import foretell, refuse_push, written
from search.options import (
    SIZE,
    AllowCrimes,
    Device,
    Forecasted,
    Gguf,
    Json,
    Name,
    Out,
    Overwrite,
    Plugins,
    PushTo,
    Quant,
    Quiet,
    SendKeys,
    ShardSize,
    Study,
    Threads,
    TrustCode,
    packed,
)
from search.report import files
from search.report.cards import card_result
from search.report.listing import KEYS, Listing
from search.report.so_far import SoFar
from search.report.summary import Report
from search.report.who import called
from search.storage.locate import in_place, open_study, winner
from search.storage.study_record import Record
from search.trial.builder import Builder
from search.views import tables
from search.views.answers import answer, made, note

HERE = Path("-")


Sort = Annotated[
    str | None,
    typer.Option(metavar="KEY", help=f"By {', '.join(KEYS)}, or a knob; value: the best first."),
]
Top = Annotated[int | None, typer.Option(min=1, help="Only the first so many.")]
Knobs = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Of these knobs only (* is anything); may be repeated."),
]
Csv = Annotated[
    Path | None,
    typer.Option(
        "--csv",
        metavar="FILE",
        dir_okay=False,
        help="Write comma-separated values there, one column a knob; - is here.",
    ),
]


def trials(
    study: Study,
    sort: Sort = None,
    top: Top = None,
    knobs: Knobs = None,
    csv: Csv = None,
    name: Name = None,
    plugin: Plugins = None,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """List a study's trials, with the values of their knobs."""
    if csv is not None and as_json:
        raise typer.BadParameter("cannot go with --json", param_hint="--csv")
    spec, record = open_study(study, name)
    found = Listing.of_record(record, sort=sort, top=top, knobs=knobs or ())
    if csv == HERE:
        print(found.csv(), end="")
    elif csv is not None:
        write_whole(csv, found.csv())
        print(f"{csv}: {len(found.trials)} trials written")
    else:
        by = ", ".join(dict.fromkeys(score.steer for score in spec.scores if score.steer))
        answer(as_json, found.rows(), lambda: tables.trials(found, by, _verdict(record)))


def _verdict(record: Record) -> list[str]:
    """Return what a study's trials come to, in words."""
    if record.summary is None:
        return SoFar.of(record).verdict()
    return Report.from_json(record.summary).sentences[:1]


def best(
    study: Study,
    name: Name = None,
    plugin: Plugins = None,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Show a study's report and its winning recipe; before there is one, the best so far."""
    _, record = open_study(study, name)
    if record.summary is None:
        found = SoFar.of(record)
        answer(as_json, found.plain(), lambda: tables.so_far(found))
        recipe = None if found.best is None else found.best.recipe
    else:
        trial, summary = winner(record)
        recipe, report = trial.recipe, Report.from_json(summary)
        data = {"finished": True, **summary["winner"], "recipe": recipe.plain()}
        answer(as_json, data, lambda: tables.report(report))
        if newer := len(record.trials) - sum(report.trials.values()):
            note(f"{newer} trials are newer than this report: run the study again for theirs")
    if not as_json and recipe is not None:
        print(f"\n{recipe.to_yaml()}", end="")


def export(
    study: Study,
    out: Out,
    trial: Annotated[str, typer.Option(help="A number, best, or a baseline's name.")] = "best",
    overwrite: Overwrite = False,
    gguf: Gguf = False,
    quant: Quant = None,
    shard_size: ShardSize = SIZE,
    threads: Threads = None,
    device: Device = "cpu",
    push: PushTo = None,
    dry_run: Forecasted = False,
    quiet: Quiet = False,
    name: Name = None,
    plugin: Plugins = None,
    send_key: SendKeys = None,
    allow_crimes: AllowCrimes = False,
    trust_remote_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Write the model folder of one trial."""
    how = Writing(shard_size, packed(gguf, quant), device)
    if dry_run:
        refuse_push(push)
    spec, record = open_study(in_place(study, note), name)
    (one,) = called(record, trial, several=False)
    result = card_result(record, one)
    builder = Builder(spec, record.about)
    if threads is not None:
        use(threads)  # not the record's own, which scores depend on, and no weight does
    check_free(out, overwrite=overwrite)
    if dry_run:
        foretell(builder.plan(one.recipe), out, how, as_json)
        return

    def make(how: Writing) -> str:
        return files.export(builder, one, out, overwrite=overwrite, result=result, how=how)

    named = one.recipe.references(), spec.roots
    digest, address = written(make, out, how, push, lambda: named, quiet=quiet)
    if as_json or not quiet:
        made(out, digest, as_json, address, trial=one.number)

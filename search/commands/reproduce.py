"""`mergetune reproduce`: build and score stored trials again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from merge_core.errors import MergeError, UnknownNameError, hint
from search.options import AllowCrimes, Json, Name, Plugins, SendKeys, Study, TrustCode, TrustTasks
from search.report import reproduce as reproduction
from search.report.who import called
from search.run.search_again import search_again
from search.storage.locate import in_place, open_study
from search.storage.study_record import Record
from search.trial.worker import Worker
from search.views import tables
from search.views.answers import answer, note
from search.views.progress_line import ProgressLine

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME=PATH",
        help="Where a model of the study lies here, if not where it says; may be repeated.",
    ),
]


def reproduce(
    study: Study,
    trial: Annotated[
        str | None,
        typer.Option(help="A number, best, a name, all (if not given), sample:K: K by lot."),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--search", help="Search again from the seed and compare trial by trial."),
    ] = False,
    model: Models = None,
    name: Name = None,
    plugin: Plugins = None,
    trust_tasks: TrustTasks = False,
    allow_crimes: AllowCrimes = False,
    trust_remote_code: TrustCode = False,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Rebuild trials from the database and compare weights and item scores."""
    if again and trial is not None:
        raise typer.BadParameter(
            "cannot go with --trial; it compares all trials", param_hint="--search"
        )
    spec, record = open_study(in_place(study, note), name)
    numbers = [t.number for t in called(record, trial or "all")]
    places = _places(model or (), record)
    worker = Worker(spec.data, spec.folder, record.about, places=places)
    _check_places(places, record, worker)
    if again:
        with ProgressLine() as progress:
            found = search_again(spec, record, worker, progress)
        answer(as_json, found, lambda: tables.searched_again(found))
        rows = [found]
    else:
        rows = []
        for row in reproduction.reproduce(record, worker, numbers):
            rows.append(row)
            if not as_json:
                tables.verdict(row)
        answer(as_json, rows, lambda: tables.verdicts(rows))  # each was shown when it was known
    if any(row["verdict"] != "identical" for row in rows):
        raise typer.Exit(1)


def _places(pairs: Sequence[str], record: Record) -> dict[str, str]:
    """Return name of a model -> where it lies here; relative paths start here."""
    known, found = (record.about or {})["parents"], {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        while equals and name not in known and "=" in path:  # names may have one, too
            more, _, path = path.partition("=")
            name = f"{name}={more}"
        if not equals or not path:
            raise MergeError(f"--model: expected NAME=PATH, got {pair!r}")
        if name not in known:
            raise UnknownNameError(
                f"--model: the study has no model {name!r}; it has {', '.join(known)}"
                f"{hint(name, known)}"
            )
        found[name] = str(Path(path).absolute()) if Path(path).exists() else path
    return found


def _check_places(places: Mapping[str, str], record: Record, worker: Worker) -> None:
    """Refuse a model that is said to be one of the study's and is not."""
    changed = worker.builder.changed_parents(record.about or {}) if places else []
    for name in places:
        if name in changed:
            was, now = (record.about or {})["parents"][name], worker.builder.parents[name].digest
            raise MergeError(
                f"--model {name}={places[name]}: holds other weights than the study saw: SHA-256 "
                f"{now[:16]}..., was {was[:16]}...; name the folder with those"
            )

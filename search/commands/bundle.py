"""`mergetune bundle`: a study as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.bundle import write as bundles
from search.options import Json, Name, Plugins, SendKeys, Study, TrustTasks
from search.views.answers import answer

Zip = Annotated[Path, typer.Argument(metavar="OUT.zip", help="The file to make.")]
NoTexts = Annotated[
    bool,
    typer.Option("--no-texts", help="Leave out texts of items, and the files that they come from."),
]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is a bundle.")]


def bundle(
    study: Study,
    out: Zip,
    overwrite: Replace = False,
    no_texts: NoTexts = False,
    name: Name = None,
    plugin: Plugins = None,
    trust_tasks: TrustTasks = False,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Put a study into one file: database, study file, tasks, items, report; no weights."""
    made = bundles.write(study, out, overwrite=overwrite, texts=not no_texts, name=name)
    answer(as_json, made.plain(), lambda: _show(made))


def _show(made: bundles.Bundled) -> None:
    plain = made.plain()
    print(f"{made.out}: {len(plain['files'])} files, {plain['bytes'] / 2**20:.1f} MiB")
    for name, parent in plain["parents"].items():
        print(f"not in it: {name}, SHA-256 {parent['sha256']}")
    for task, told in plain["texts"].items():
        print(f"{task}: {told['items']} items, {told['texts']} with text: {told['why']}")
    for name, why in plain["left_out"].items():
        print(f"not in it: {name}: {why}")

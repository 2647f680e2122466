"""`mergetune compare`: two studies' winners on the items that both have."""

from __future__ import annotations

from typing import Annotated

import typer

from search.options import Json, Name, Plugins, SendKeys
from search.report.compare import compare as compared
from search.spec.storage_url import masked
from search.storage.locate import open_study
from search.views.answers import answer
from search.views.comparison import comparison

One = Annotated[
    str, typer.Argument(metavar="A", help="A finished study: file, folder, bundle, URL.")
]
Other = Annotated[str, typer.Argument(metavar="B", help="Another one.")]
OtherName = Annotated[
    str | None, typer.Option(help="Which study of B's storage, where it holds several.")
]


def compare(
    study: One,
    other: Other,
    name: Name = None,
    other_name: OtherName = None,
    plugin: Plugins = None,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Compare the winners of two studies on report items that both have and neither chose by."""
    ours, theirs = open_study(study, name)[1], open_study(other, other_name)[1]
    found = compared(ours, theirs, (masked(study), masked(other)))
    answer(as_json, found.plain(), lambda: comparison(found))

"""`mergetune report`: the report of what is stored of a study, finished or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from merge_core.errors import ParameterError
from search.options import Json, Name, Plugins, SendKeys, Study
from search.report import pages
from search.report.files import check_owner
from search.report.page.found import Found
from search.spec import study_file
from search.spec.storage_url import storage_file
from search.spec.study_name import split
from search.storage.archive import is_bundle
from search.storage.locate import open_study
from search.views.answers import answer

Folder = Annotated[
    Path | None,
    typer.Option("--out", file_okay=False, help="Write there, instead of beside the results."),
]
Price = Annotated[
    float | None,
    typer.Option("--price", min=0.0, help="What an hour costs you, in your money, for the costs."),
]


def report(
    study: Study,
    out: Folder = None,
    price: Price = None,
    name: Name = None,
    plugin: Plugins = None,
    send_key: SendKeys = None,
    as_json: Json = False,
) -> None:
    """Write a study's report: report.html to look at, report.md for model cards."""
    _, record = open_study(study, name)
    folder = _folder(study, record.url) if out is None else out
    check_owner(folder, record.name)
    written = pages.write(folder, Found.of(record, study, price))
    data = {"study": record.name, "files": [str(file) for file in written]}
    answer(as_json, data, lambda: _say(written))


def _say(written: list[Path]) -> None:
    for file in written:
        print(f"{file}: written")


def _folder(study: str, url: str) -> Path:
    """Return where a study's results are: beside its database, or its study file.

    Raises:
        ParameterError: It is on a server, or in a bundle, and nothing here belongs to it.
    """
    study, _ = split(study)
    if is_bundle(study):
        raise ParameterError(f"{study}: a bundle, which has its report in it; say --out FOLDER")
    if "://" not in study or Path(study).exists():
        return study_file.read(Path(study)).results
    file = storage_file(url)
    if file is None:
        raise ParameterError(f"{url}: a storage that is no file here; say --out FOLDER")
    return file.parent

"""The report as files beside the study: report.html for people, report.md for model cards."""

from __future__ import annotations

from pathlib import Path

from merge_core.atomic_write import write_whole
from search.report.markdown import markdown
from search.report.page.about import commands, measured_on
from search.report.page.found import Found
from search.report.page.page import page

PAGE, TEXT = "report.html", "report.md"


def write(folder: Path, found: Found) -> list[Path]:
    """Write the page, and of a finished study the text; returns what was written.

    Raises:
        OutputError: One cannot be written.
    """
    files = {PAGE: page(found)}
    if found.report is not None and found.winner is not None:
        recipe = found.winner.recipe.to_yaml()
        files[TEXT] = markdown(found.report, recipe, measured_on(found), commands(found))
    for name, text in files.items():
        write_whole(folder / name, text)
    return [folder / name for name in files]

"""`--push REPO` of `merge`, `moe` and `export`: asked for before merging, done at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import typer

from merge_core.errors import ParameterError
from merge_core.output.hub_upload import Target, target
from merge_core.parents.locate import is_local
from search.views.answers import note


def agreed(repo: str, references: Iterable[str], roots: Sequence[Path]) -> Target:
    """Ask whether to upload.

    Args:
        repo: Of ``--push``.
        references: Of the models that the recipe names.
        roots: Folders that relative ones are tried from.

    Raises:
        ParameterError: Nobody can be asked; or see ``hub_upload.target``.
        OutputError: See there, too.
        typer.Abort: The answer is no.
    """
    if not can_ask():
        raise ParameterError(
            f"--push {repo}: asks before it uploads, and there is no terminal; leave it out, and "
            f"upload the folder with: hf upload {repo} OUT"
        )
    found = target(repo)
    for line in _terms(found, [name for name in references if is_local(name, roots)]):
        note(line)
    typer.confirm("Merge, and upload it there?", err=True, abort=True)
    return found


def can_ask() -> bool:
    """Return whether there is a terminal for a question and its answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def uploaded(where: Target, folder: Path, *, quiet: bool) -> str:
    """Upload what was agreed to; return the commit's address.

    Raises:
        OutputError: See ``hub_upload.Target.upload``.
    """
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if not quiet:
        note(f"uploading {size / 1e9:.2f} GB to {where.repo}")
    return where.upload(folder)


def _terms(where: Target, local: list[str]) -> list[str]:
    """Return what a user should know before the answer."""
    what = "will be made, and private" if where.new else "is there; files of the same names go"
    seen = "" if where.new or where.private else "; it is PUBLIC"
    lines = [f"{where.url}: {what}{seen}"]
    if local:
        lines.append(
            f"card and recipe name models by their paths here, which others cannot open: "
            f"{', '.join(local)}"
        )
    return lines

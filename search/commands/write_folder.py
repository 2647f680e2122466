"""What `merge`, `moe` and `export` share: a folder is asked for, written, uploaded, or foretold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import typer

from merge_core.inspect.forecast import forecast
from merge_core.output.model_folder import Writing
from merge_core.plan.steps import Plan
from search.commands.push import agreed, uploaded
from search.views import writing
from search.views.answers import answer
from search.views.share_done import share_done

Models = tuple[Iterable[str], Sequence[Path]]  # references, and folders that they are tried from


def written(
    make: Callable[[Writing], str],
    out: Path,
    how: Writing,
    push: str | None,
    models: Callable[[], Models],
    *,
    quiet: bool,
) -> tuple[str, str | None]:
    """Make a folder, showing how that goes, and upload it if asked for, after a question.

    Args:
        make: Writes it; returns its weights digest.
        out: The folder.
        how: It is written.
        push: The repository that it is uploaded to, if any.
        models: What the recipe names; called before the question.
        quiet: Show nothing.

    Returns:
        The weights digest, and the address of what was uploaded.

    Raises:
        MergeError: See ``push.agreed``, ``push.uploaded``; or by ``make``.
    """
    where = None if push is None else agreed(push, *models())
    with share_done("merging", in_bytes=True, quiet=quiet) as watch:
        digest = make(replace(how, watch=watch))
    return digest, None if where is None else uploaded(where, out, quiet=quiet)


def refuse_push(push: str | None) -> None:
    """Refuse ``--push`` where nothing is written.

    Raises:
        typer.BadParameter: It is given.
    """
    if push is not None:
        raise typer.BadParameter("--dry-run uploads nothing: leave out --push")


def foretell(plan: Plan, out: Path, how: Writing, as_json: bool) -> None:
    """Print what writing a folder will come to."""
    found = forecast(plan, out, how)
    answer(as_json, found.plain(), lambda: writing.forecast(found))

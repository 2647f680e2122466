"""What a finished study leaves beside its file: summary.json, best.yaml, best-model/."""

from __future__ import annotations

import json
from pathlib import Path

from merge_core.atomic_write import write_whole
from merge_core.errors import OutputExistsError, warn
from merge_core.json_text import json_text
from merge_core.output import model_folder
from merge_core.output.contents import CARD, is_whole
from merge_core.output.model_card import CardResult
from merge_core.output.model_folder import USUAL, Writing
from search.report.summary import Report
from search.trial.builder import Builder
from search.trial.trial import Trial

SUMMARY, RECIPE, MODEL = "summary.json", "best.yaml", "best-model"


def check_owner(folder: Path, study: str) -> None:
    """Refuse to write over what another study found.

    Raises:
        OutputExistsError: The summary in the folder is another's.
    """
    try:
        owner = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["study"]
    except (OSError, ValueError, LookupError, TypeError):  # none, or not whole: nobody's
        return
    if owner != study:
        raise OutputExistsError(
            f"{folder}: holds what study {owner!r} found; give study {study!r} a folder of its "
            "own, or a study file with another file name, or move that away"
        )


def write(
    folder: Path, builder: Builder, winner: Trial, report: Report, result: CardResult
) -> None:
    """Write the three results into a folder; of a model that is whole at most the card is new."""
    write_whole(folder / SUMMARY, json_text(report.to_json()) + "\n")
    head = (
        f"# Winner of the mergetune study {report.study!r}: trial {winner.number}, seed "
        f"{report.seed}.\n# Local models are named relative to this file.\n"
    )
    recipe = model_folder.portable(winner.recipe, builder.opened(winner.recipe), folder).to_yaml()
    write_whole(folder / RECIPE, head + recipe)
    if not is_whole(folder / MODEL, winner.weights_digest):
        export(builder, winner, folder / MODEL, overwrite=True, ours=True, result=result)
    elif not model_folder.write_card(builder.plan(winner.recipe), folder / MODEL, result):
        warn(
            f"{folder / MODEL / CARD}: left as it is, since it is not as mergetune wrote it; "
            "remove it and run again for a card with this result"
        )


def export(
    builder: Builder,
    trial: Trial,
    out: Path,
    *,
    overwrite: bool = False,
    ours: bool = False,
    result: CardResult | None = None,
    how: Writing = USUAL,
) -> str:
    """Write a trial's model folder; returns its weights digest. See ``model_folder.write``.

    Raises:
        CheckpointError: The parents no longer give the weights that the trial had.
        OutputExistsError: ``out`` is taken.
    """
    expected = trial.weights_digest or None  # a failed trial may have none
    return model_folder.write(
        builder.plan(trial.recipe),
        out,
        overwrite=overwrite,
        ours=ours,
        expected=expected,
        result=result,
        how=how,
    )

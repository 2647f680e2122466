"""What a finished study leaves beside its file: summary.json, best.yaml, best-model/."""

from __future__ import annotations

import json
from pathlib import Path

from merge_core.atomic_write import write_whole
from merge_core.json_text import json_text
from merge_core.output import model_folder
from search.report.summary import Report
from search.trial.builder import Builder
from search.trial.trial import Trial

SUMMARY, RECIPE, MODEL = "summary.json", "best.yaml", "best-model"


def write(folder: Path, builder: Builder, winner: Trial, report: Report) -> None:
    """Write the three results into a folder; those that are there and right are left alone."""
    write_whole(folder / SUMMARY, json_text(report.to_json()) + "\n")
    head = (
        f"# Winner of the mergetune study {report.study!r}: trial {winner.number}, seed "
        f"{report.seed}.\n# Local models are named relative to this file.\n"
    )
    recipe = model_folder.portable(winner.recipe, builder.parents, folder).to_yaml()
    write_whole(folder / RECIPE, head + recipe)
    if _digest_of(folder / MODEL) != winner.weights_digest:
        export(builder, winner, folder / MODEL, overwrite=True)


def export(builder: Builder, trial: Trial, out: Path, *, overwrite: bool = False) -> str:
    """Write a trial's model folder; returns its weights digest.

    Raises:
        CheckpointError: The parents no longer give the weights that the trial had.
        OutputExistsError: ``out`` is taken.
    """
    expected = trial.weights_digest or None  # a failed trial may have none
    plan = builder.plan(trial.recipe)
    return model_folder.write(plan, out, overwrite=overwrite, expected=expected)


def _digest_of(folder: Path) -> str | None:
    record = folder / model_folder.RECORD
    if not record.is_file():
        return None
    found: str = json.loads(record.read_text(encoding="utf-8"))["weights_digest"]
    return found

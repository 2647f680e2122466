"""`mergetune merge --seeds N`: how much the random masks of a recipe matter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from merge_core import api
from merge_core.merge.nested import plan
from merge_core.merge.seed_spread import Apart, Spread, seeded, spread
from search.run.seed_scores import SeedScores, seed_scores
from search.views.answers import answer, warn
from search.views.seeds import seeds as shown
from search.views.share_done import share_done


def compare_seeds(
    recipe: Path,
    out: Path | None,
    count: int | None,
    score: Path | None,
    *,
    strict: bool,
    as_json: bool,
) -> None:
    """Merge a recipe with several seeds, and print how far weights, and scores, are apart.

    Raises:
        typer.BadParameter: The options do not go together.
    """
    if count is None:
        rule = "--score scores merges of several seeds: add --seeds N"
        raise typer.BadParameter(rule if score is not None else "expected OUT, or --seeds N")
    if out is not None:
        raise typer.BadParameter("with --seeds nothing is written: leave out OUT")
    made = api.planned(recipe, tell=warn, strict=strict)
    with share_done("tensors") as progress:
        found = spread(made, count, progress)
    scores = None
    if score is not None:
        plans = [plan(one, made.opened) for one in seeded(made.recipe, count)]
        with share_done("seeds") as progress:
            scores = seed_scores(score, plans, progress)
    answer(as_json, _plain(found, scores), lambda: shown(found, scores))


def _plain(found: Spread, scores: SeedScores | None) -> dict[str, Any]:
    def facts(one: Apart) -> dict[str, float]:
        return {"spread": one.share, "cosine": one.cosine}

    return {
        "seeds": list(found.seeds),
        "weights_digests": list(found.digests),
        **facts(found.whole),
        "tensors": {name: facts(one) for name, one in found.tensors.items()},
        "scores": None if scores is None else asdict(scores),
    }

"""Trial -> recipe -> model -> scores: what becomes of one recipe.

A failed candidate (out of memory, weights or scores that are not finite, an item that it cannot
take) is a failed trial with its traceback kept, and the search goes on. It never gets a score of 0.
What is no candidate's fault is raised, and no trial comes of it.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from merge_core.errors import NonFiniteError
from merge_core.recipe.schema import Recipe
from search.samplers.steps import Measured, Step
from search.trial import racing
from search.trial.racing import Race
from search.trial.router_file import asks, without_file
from search.trial.tasks import SEARCH, Scores
from search.trial.trial import Measurement, Trial
from search.trial.worker import InterruptedStudyError, Job, Result, Worker


def settle(
    worker: Worker,
    recipe: Recipe,
    *,
    number: int,
    earlier: Sequence[Trial],
    baseline: str | None = None,
    params: Mapping[str, Any] | None = None,
    step: Step | None = None,
) -> Trial:
    """Build and score one recipe on the search pool.

    Routers of a mixture that are to be trained are first, and the trial's recipe names their file.
    A recipe, or weights, that an earlier trial had are not scored again. Before the first scores
    every item of every pool must fit the model.

    Args:
        worker: Builds and scores.
        recipe: What to build.
        number: Of the trial.
        earlier: All settled trials.
        baseline: Name, if no sampler asked for it.
        params: The knobs' values.
        step: What to measure there for a search by gradient.

    Raises:
        InterruptedStudyError: It could not be built or scored, and that is not its own fault.
        MergeError: The engine is not the one that the study began with.
    """
    start = time.perf_counter()
    raced = baseline is None and not (step is not None and step.mean)  # which is a finalist
    result, same = _result(worker, recipe, earlier, step, raced)
    if result.failure is not None and not result.failure.candidate:
        raise InterruptedStudyError(f"trial {number}", result.failure)
    found = _valued(worker, result, same, earlier)
    if step is not None:
        found["gradient"] = result.gradient or Measured({}, mean=step.mean)
    spent = {"build": 0.0, "model": 0.0, **result.seconds}
    other = round(time.perf_counter() - start - sum(spent.values()), 4)
    scores = found.pop("scores", {})
    return Trial(
        number=number,
        recipe=result.recipe or recipe,
        fitted=result.fitted,
        baseline=baseline,
        params=params or {},
        measured={SEARCH: Measurement(scores, {**spent, "other": other})},
        **found,
    )


def _result(
    worker: Worker, recipe: Recipe, earlier: Sequence[Trial], step: Step | None, raced: bool
) -> tuple[Result, Trial | None]:
    """Return what comes of a recipe, and the earlier trial whose scores it has, if there is one."""
    known = ("complete", "stopped") if raced else ("complete",)
    done = [trial for trial in earlier if trial.state in known]
    was = [without_file(t.recipe) if asks(recipe) else t.recipe for t in done]
    same = next((t for t, its in zip(done, was, strict=True) if its == recipe), None)
    if same is not None and step is None:
        return Result(same.weights_digest, recipe=same.recipe), same
    digests = frozenset(t.weights_digest for t in done)
    against = racing.rivals(earlier) if raced and worker.track else []
    race = Race(tuple(trial.search.scores for trial in against))
    job = Job(recipe, SEARCH, known=digests, first=not done, step=step, race=race)
    result = worker.run(job)
    return result, next((t for t in done if t.weights_digest == result.weights_digest), None)


def _valued(
    worker: Worker, result: Result, same: Trial | None, earlier: Sequence[Trial]
) -> dict[str, Any]:
    """Return what becomes of a result, or of the scores of an earlier trial with its weights."""
    if result.failure is not None:
        return {"state": "failed", "error": result.failure.traceback}
    known = {"weights_digest": result.weights_digest}
    if same is not None:
        taken = {key: getattr(same, key) for key in ("state", "value", "values", "stderr")}
        return {**known, **taken, "scores": same.search.scores, "same_as": same.number}
    worker.check_engine()
    if result.scores is None:  # a step between two that are scored
        return {**known, "state": "unscored"}
    try:
        return {**known, "scores": result.scores, **_number(worker, result.scores, earlier)}
    except NonFiniteError:
        return {"state": "failed", "error": traceback.format_exc()}


def _number(worker: Worker, scores: Scores, earlier: Sequence[Trial]) -> dict[str, Any]:
    """Return the number of a trial, estimated where it was stopped."""
    tasks, track = worker.tasks, worker.track
    if track is not None and not tasks.is_whole(scores, SEARCH):
        return {"state": "stopped", **racing.estimate(tasks, track, scores, earlier)}
    value, stderr = tasks.value(scores, SEARCH)
    return {
        "state": "complete",
        "value": value,
        "values": tasks.values(scores, SEARCH),
        "stderr": stderr,
    }

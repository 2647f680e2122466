"""Trial -> recipe -> model -> scores: what becomes of one recipe.

A failed candidate (out of memory, weights or scores that are not finite, an item that it cannot
take) is a failed trial with its traceback kept, and the search goes on. It never gets a score of 0.
What is no candidate's fault is raised, and no trial comes of it.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from merge_core.errors import MergeError, NonFiniteError
from merge_core.recipe.schema import Recipe
from search.samplers.steps import Measured, Step
from search.trial import racing
from search.trial.failure import InterruptedStudyError
from search.trial.known import Known
from search.trial.racing import Race
from search.trial.tasks import SEARCH, Scores
from search.trial.trial import Measurement, Trial
from search.trial.worker import Bench, Job, Result


@dataclass(frozen=True)
class Wanted:
    """What is to become a trial.

    Args:
        recipe: What to build.
        baseline: Name, if no sampler asked for it.
        params: The knobs' values.
        step: What to measure there for a search by gradient.
    """

    recipe: Recipe
    baseline: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    step: Step | None = None

    @property
    def raced(self) -> bool:
        """Whether it may be stopped: neither baselines are, nor the mean of steps, a finalist."""
        return self.baseline is None and not (self.step is not None and self.step.mean)


class Underway:
    """A recipe that is being built and scored on the search pool.

    Routers of a mixture that are to be trained are first, and the trial's recipe names their file.
    A recipe, or weights, that a known trial had are not scored again. Before the first scores every
    item of every pool must fit the model.

    Args:
        bench: Builds and scores.
        wanted: What is to become a trial.
        known: The trials that it knows, the first ones of the study.
    """

    def __init__(self, bench: Bench, wanted: Wanted, known: Known) -> None:
        begun = time.perf_counter()
        self.wanted, self._bench, self._known = wanted, bench, [*known.trials]
        self._same: Trial | None = None
        if wanted.step is None:  # a step is measured all the same
            self._same = known.with_recipe(wanted.recipe, raced=wanted.raced)
        jobs = [] if self._same is not None else _jobs(bench, wanted, known)
        self._own = time.perf_counter() - begun
        self.futures = [bench.submit(job) for job in jobs]

    def done(self) -> bool:
        """Return whether all that it waits for is there."""
        return all(future.done() for future in self.futures)

    def settled(self, number: int, earlier: Known) -> Trial:
        """Wait for what is under way, and return the trial.

        Args:
            number: Of the trial.
            earlier: All trials that are settled by now.

        Raises:
            InterruptedStudyError: It could not be built or scored, and that is not its own fault.
            MergeError: The engine is not the one that the study began with.
        """
        results = [future.result() for future in self.futures]
        begun = time.perf_counter()
        wanted, same = self.wanted, self._same
        result = _joined(results, wanted.step) if same is None else _of(same)
        if result.failure is not None and not result.failure.candidate:
            raise InterruptedStudyError(f"trial {number}", result.failure)
        if same is None:
            same = earlier.with_weights(result.weights_digest, raced=wanted.raced)
        found = _valued(self._bench, result, same, self._known)
        if wanted.step is not None:
            found["gradient"] = result.gradient or Measured({}, mean=wanted.step.mean)
        scores = found.pop("scores", {})
        other = round(self._own + time.perf_counter() - begun, 4)
        spent = {"build": 0.0, "model": 0.0, **result.seconds, "other": other}
        return Trial(
            number=number,
            recipe=result.recipe or wanted.recipe,
            fitted=result.fitted,
            baseline=wanted.baseline,
            params=wanted.params,
            measured={SEARCH: Measurement(scores, spent)},
            **found,
        )


def _of(trial: Trial) -> Result:
    return Result(trial.weights_digest, recipe=trial.recipe)


def _jobs(bench: Bench, wanted: Wanted, known: Known) -> list[Job]:
    """Return what is to be done: the scores first, then each part of a step."""
    step, rivals = wanted.step, known.rivals if wanted.raced and bench.track else []
    race = Race(tuple(trial.search.scores for trial in rivals))
    digests, first = known.digests(raced=wanted.raced), not known.rivals
    scores = Job(wanted.recipe, SEARCH, known=digests, first=first, race=race)
    if step is None:
        return [scores]
    looks = [Job(wanted.recipe, SEARCH, scored=False, look=step.look)] if step.look else []
    batches = [Job(wanted.recipe, SEARCH, scored=False, learn=x) for x in step.batches()]
    return [*([scores] if step.scored else []), *looks, *batches]


def _joined(results: Sequence[Result], step: Step | None) -> Result:
    """Return what came of a recipe's jobs together.

    Raises:
        MergeError: Workers have built other weights of one recipe.
    """
    seconds: dict[str, float] = {}
    for result in results:
        for name, spent in result.seconds.items():
            seconds[name] = round(seconds.get(name, 0.0) + spent, 4)
    first = next((r for r in results if r.failure is not None), results[0])
    if first.failure is not None or step is None:
        return replace(first, seconds=seconds)
    digests = list(dict.fromkeys(result.weights_digest for result in results))
    if len(digests) > 1:
        raise MergeError(f"workers built one recipe into other weights: {', '.join(digests)}")
    parts = [result.gradient for result in results if result.gradient is not None]
    return replace(first, seconds=seconds, gradient=step.joined(parts))


def _valued(
    bench: Bench, result: Result, same: Trial | None, known: Sequence[Trial]
) -> dict[str, Any]:
    """Return what becomes of a result, or of the scores of an earlier trial with its weights."""
    if result.failure is not None:
        return {"state": "failed", "error": result.failure.traceback}
    built = {"weights_digest": result.weights_digest}
    if same is not None:
        taken = {key: getattr(same, key) for key in ("state", "value", "values", "stderr")}
        return {**built, **taken, "scores": same.search.scores, "same_as": same.number}
    if result.engine:
        bench.check_engine(result)
    if result.scores is None:  # a step between two that are scored
        return {**built, "state": "unscored"}
    try:
        return {**built, "scores": result.scores, **_number(bench, result.scores, known)}
    except NonFiniteError:
        return {"state": "failed", "error": traceback.format_exc()}


def _number(bench: Bench, scores: Scores, known: Sequence[Trial]) -> dict[str, Any]:
    """Return the number of a trial, estimated where it was stopped."""
    tasks, track = bench.tasks, bench.track
    if track is not None and not tasks.is_whole(scores, SEARCH):
        return {"state": "stopped", **racing.estimate(tasks, track, scores, known)}
    value, stderr = tasks.value(scores, SEARCH)
    return {
        "state": "complete",
        "value": value,
        "values": tasks.values(scores, SEARCH),
        "stderr": stderr,
    }

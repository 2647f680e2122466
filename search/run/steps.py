"""The phase of a search that goes by gradient: which trials were its steps, and what comes next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from merge_core.errors import MergeError
from search.samplers.steps import Step
from search.spec.study_file import StudySpec
from search.trial.progress import Progress
from search.trial.slopes import ALONE, FIRST, left_out, refusal, refused
from search.trial.tasks import SEARCH
from search.trial.trial import Trial
from search.trial.worker import Bench

SHARE = 0.75  # of the trials of ``auto`` that may be steps (``dev/LOG.md``),
GENERATIONS = 4  # if those that are left make so many of CMA-ES: else all may be


class Steps:
    """The steps of one study.

    Args:
        spec: The study.
        bench: Takes them.
    """

    def __init__(self, spec: StudySpec, bench: Bench) -> None:
        self._seed = spec.search.seed
        self._sampler = spec.search.sampler
        self._smooth = bench.builder.space.smooth
        self._distributions = bench.builder.space.distributions()
        self._clusters = bench.tasks.clusters(SEARCH)

    def next(self, trials: Sequence[Trial], budget: int) -> Step | None:
        """Return the next step, or None: steps have led as far as they do, or trials were drawn.

        Args:
            trials: All that are settled, the baselines first.
            budget: How many are searched in all.
        """
        from search.samplers.gradient import GradientSearch  # imports optuna

        searched = [trial for trial in trials if trial.was_searched()]
        done = [trial.gradient for trial in searched if trial.gradient is not None]
        start = best_point(before(trials, Trial.was_searched))
        if len(done) < len(searched) or start is None:
            return None
        smooth, seed = self._smooth, self._seed
        search = GradientSearch(self._distributions, smooth, start, self._clusters, seed)
        return search.next(done, self.most(budget))

    def most(self, budget: int) -> int:
        """Return how many of so many trials may be steps."""
        return most_steps(self._sampler, budget, len(self._distributions))


def steps(spec: StudySpec, bench: Bench, progress: Progress) -> Steps | None:
    """Return the steps of a study, or None where it goes without.

    Raises:
        MergeError: The study asks for a gradient, and there is none.
    """
    if spec.search.sampler not in (ALONE, FIRST):
        return None
    why = refusal(spec, bench.builder.space, bench.tasks)
    if why is None:
        return Steps(spec, bench)
    if spec.search.sampler == ALONE:
        raise MergeError(f"search.sampler: {refused(why)}")
    progress.notice(left_out(why))
    return None


def most_steps(sampler: str, budget: int, dimensions: int) -> int:
    """Return how many trials of a budget may be steps."""
    generation = 4 + int(3 * math.log(dimensions))
    drawn = int((1 - SHARE) * budget) if sampler == FIRST else 0
    return budget - drawn if drawn >= GENERATIONS * generation else budget


def before(trials: Sequence[Trial], first: Callable[[Trial], bool]) -> Sequence[Trial]:
    """Return the trials before the first of a kind: what comes later moves no start."""
    return trials[: next((i for i, trial in enumerate(trials) if first(trial)), len(trials))]


def best_point(trials: Sequence[Trial]) -> Mapping[str, Any] | None:
    """Return the point of the best trial that lies in the space and has seen all search items."""
    points = [t for t in trials if t.params and t.state == "complete"]
    best = max(points, key=lambda t: t.value or 0.0, default=None)
    return None if best is None else best.params

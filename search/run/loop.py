"""The search: baselines first, then ask, settle, store, until the budget ends.

The sampler works on an in-memory study that is filled from the stored trials; only settled trials
reach either. Before every ask the sampler is made anew from (study seed, number of settled trials),
so a run that was killed and started again draws what an unbroken one draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from merge_core.errors import ItemError, MergeError, NonFiniteError
from merge_core.recipe.schema import Recipe
from search.run.cuts import cuts
from search.run.first_plans import plannable
from search.run.prior import Prior, taken_over
from search.run.resume import begin_or_check
from search.run.steps import Steps, before, best_point, steps
from search.samplers.ask import ask, mean_of
from search.samplers.registry import Maker, Start, find
from search.samplers.shipped import has_hops, make_near
from search.space.space import Space
from search.space.starting_points import (
    PARENT,
    Baseline,
    baselines,
    generation_mean,
    mean_name,
)
from search.spec.study_file import StudySpec
from search.storage.study_record import Record
from search.storage.trial_codec import told
from search.trial.budget import NO_CHANGE, Budget, Change, End, searched
from search.trial.progress import Progress
from search.trial.settle import settle
from search.trial.slopes import ALONE, untrainable
from search.trial.trial import Trial, kind_of
from search.trial.worker import Worker

if TYPE_CHECKING:
    import optuna

ALIKE = 8  # candidates of the search that fail for one reason, one after the other: an end
OWN_FAULTS = (NonFiniteError.__name__, ItemError.__name__)  # that always come again
MEMORY = ("MemoryError", "DefaultCPUAllocator")  # words of what comes again on the same machine


def search(
    spec: StudySpec,
    record: Record,
    worker: Worker,
    progress: Progress,
    stop: Callable[[], bool],
    change: Change = NO_CHANGE,
) -> End | None:
    """Settle the trials that are still to be done.

    Args:
        spec: The study.
        record: Where it is stored.
        worker: Builds and scores its candidates.
        progress: Is told of every settled trial.
        stop: Asked between two trials.
        change: What this run has instead of the study file's budget.

    Returns:
        Which part of the budget ended the search; None if ``stop`` did.

    Raises:
        MergeError: Parents or tasks are not those that the study began with, no parent works, or
            several candidates failed alike.
        InterruptedStudyError: What failed was no candidate.
    """
    prior = taken_over(spec, record, worker)
    for notice in (*begin_or_check(spec, record, worker), *prior.notices()):
        progress.notice(notice)
    if rule := untrainable(spec, worker.tasks):
        raise MergeError(f"recipe.moe.gate_mode: {rule}")
    space = worker.builder.space
    first = [*baselines(spec, space, prior.baselines), *cuts(spec, record, worker, progress)]
    pending = plannable(worker.builder, _pending(first, record), progress.notice)
    budget = _budget(spec, record.trials, space, change, progress)
    left = max(0, budget.trials - searched(record.trials))
    progress.begin(len(record.trials) + len(pending) + left, record.trials, budget.hours)
    loop = _Loop(spec, record, worker, prior, steps(spec, worker, progress), progress)
    for baseline in pending:
        if stop():
            return None
        progress.phase("baselines")
        progress.settled(loop.baseline(baseline))
    if pending:
        progress.stage(f"computed once for all candidates so far: {worker.builder.once}")
    _check_baselines(record.trials)
    end = _searched(loop, record, budget, progress, stop)
    return None if end is None else _ended(loop, end, progress, stop)


def _ended(loop: _Loop, end: End, progress: Progress, stop: Callable[[], bool]) -> End | None:
    """Settle the mean of the last generation; return the end, or None where ``stop`` says so."""
    if end.by != "trials":
        progress.notice(f"the search ends: {end.text}")
    mean = loop.averaged()
    if mean is None:
        return end
    if stop():
        return None
    progress.stage("the mean of the last generation")
    loop.baseline(mean)
    return end


def _budget(
    spec: StudySpec, settled: list[Trial], space: Space, change: Change, progress: Progress
) -> Budget:
    budget = Budget.of(spec.search, change, settled)
    if not space.dimensions:
        return replace(budget, trials=0)
    if change.more is not None:
        progress.notice(
            f"--more {change.more}: the search will have {budget.trials} trials, baselines not "
            "counted; after a stop, --more takes what is then missing of them"
        )
    return budget


def _searched(
    loop: _Loop, record: Record, budget: Budget, progress: Progress, stop: Callable[[], bool]
) -> End | None:
    """Search until the budget ends, or, with None, until ``stop`` says so."""
    while (end := budget.end(record.trials)) is None:
        if stop():
            return None
        trial = loop.stepped(budget.trials) or loop.asked()
        if trial is None:
            return End("gradient", "the held-out items' loss falls no more")
        progress.settled(trial)
    return end


class _Loop:
    def __init__(
        self,
        spec: StudySpec,
        record: Record,
        worker: Worker,
        prior: Prior,
        steps: Steps | None,
        progress: Progress,
    ) -> None:
        self._spec, self._record, self._worker = spec, record, worker
        self._steps, self._progress = steps, progress
        self._space = worker.builder.space
        self._distributions = self._space.distributions()
        objectives = worker.tasks.aggregate.objectives
        auto = spec.search.sampler == "auto" and not has_hops(self._distributions)
        # CMA-ES has one objective
        self._maker = find("tpe" if auto and objectives > 1 else spec.search.sampler)
        self._study = _sampler_study(objectives)
        self._reasons: list[str] = []
        self._study.add_trials(prior.frozen(self._distributions))
        for trial in record.trials:
            self._learn(trial)

    def baseline(self, baseline: Baseline) -> Trial:
        """Settle one baseline."""
        trial = self._settle(baseline.recipe, baseline=baseline.name, params=baseline.params)
        self._learn(trial)
        return trial

    def stepped(self, budget: int) -> Trial | None:
        """Settle the next step by gradient, if there is one; ``budget``: trials in all."""
        step = None if self._steps is None else self._steps.next(self._record.trials, budget)
        if step is None:
            return None
        self._progress.phase("gradient")
        trial = self._settle(self._space.recipe(step.point), params=step.point, step=step)
        self._check_alike(trial)
        self._learn(trial)
        return trial

    def asked(self) -> Trial | None:
        """Settle what the sampler proposes next; None where it proposes nothing more."""
        import optuna

        if self._spec.search.sampler == ALONE:
            return None
        self._progress.phase("drawing")
        running = ask(
            *self._drawn_by(),
            settled=sum(not trial.is_mean() for trial in self._record.trials),
            conditions=self._space,
        )
        trial = self._settle(self._space.recipe(running.params), params=running.params)
        self._check_alike(trial)
        failed = optuna.trial.TrialState.FAIL if trial.state == "failed" else None
        self._study.tell(running, trial.values or trial.value, state=failed)
        return trial

    def averaged(self) -> Baseline | None:
        """Return the mean of the last whole generation, if there is one that is not settled.

        It is no draw: the budget does not count it, and no sampler learns from it.
        """
        trials = self._record.trials
        drawn, count = any(map(Trial.was_drawn, trials)), searched(trials)
        if not drawn or any(trial.baseline == mean_name(count) for trial in trials):
            return None
        point = mean_of(*self._drawn_by())
        return None if point is None else generation_mean(self._space, count, point)

    def _drawn_by(self) -> tuple[optuna.Study, dict[str, Any], Maker, Start, int]:
        """Return the first arguments of ``ask`` and ``mean_of``."""
        maker = make_near if self._stepped_first() else self._maker
        start = best_point(before(self._record.trials, Trial.was_drawn))
        return self._study, self._distributions, maker, start, self._spec.search.seed

    def _stepped_first(self) -> bool:
        return self._steps is not None and any(t.gradient for t in self._record.trials)

    def _settle(self, recipe: Recipe, **known: Any) -> Trial:
        done = self._record.trials
        trial = settle(self._worker, recipe, number=len(done), earlier=done, **known)
        known = (self._record.about or {}).get("engine", {})
        if self._worker.seen.keys() - known.keys():
            engine = {**self._worker.seen, **known}
            self._record.begin({**(self._record.about or {}), "engine": engine})
        self._record.add(trial, self._distributions)
        return trial

    def _check_alike(self, trial: Trial) -> None:
        """Stop where candidates of this run fail one after the other, all for the same reason."""
        self._reasons = [*self._reasons, trial.reason][-ALIKE:]
        if trial.reason and self._reasons == [trial.reason] * ALIKE:
            raise MergeError(
                f"the last {ALIKE} candidates failed for one reason: {trial.reason}; mend that, "
                "or run again to go on"
            )

    def _learn(self, trial: Trial) -> None:
        """Tell the sampler's study; trials outside the space would shrink what samplers see."""
        if trial.params and trial.state != "unscored" and not trial.is_mean():
            self._study.add_trial(told(trial, self._distributions))


def _sampler_study(objectives: int) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=["maximize"] * objectives)


def _pending(first: list[Baseline], record: Record) -> list[Baseline]:
    """Return the baselines to settle; with failed ones that may do this time.

    What is the candidate's own fault would only come again; but without any parent there is no
    report, so then all that failed are tried again.
    """
    by_name = {t.baseline: t for t in record.trials}  # of several tries the last
    tried = [by_name[b.name] for b in first if b.name in by_name]
    failed = [t for t in tried if t.state == "failed"]
    if len(tried) < len(first) or not _without_parents(tried):
        failed = [t for t in failed if not _is_own_fault(t)]
    if record.summary is not None:
        failed = []
    again = {t.baseline for t in failed}
    return [b for b in first if b.name not in by_name or b.name in again]


def _is_own_fault(trial: Trial) -> bool:
    text = trial.error or ""
    return kind_of(text) in OWN_FAULTS or any(word in text for word in MEMORY)


def _without_parents(trials: list[Trial]) -> bool:
    parents = [t for t in trials if (t.baseline or "").startswith(PARENT)]
    return all(trial.state == "failed" for trial in parents)


def _check_baselines(trials: list[Trial]) -> None:
    if _without_parents(trials):
        all_failed = all(trial.state == "failed" for trial in trials)
        which = "baseline" if all_failed else "parent"
        first = next(trial for trial in trials if trial.state == "failed")
        raise MergeError(
            f"every {which} failed, so the search was not begun; the first: {first.reason}; "
            "mend that and run again: they are tried once more"
        )

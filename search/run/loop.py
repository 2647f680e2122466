"""The search: baselines first, then ask, settle, store, until the budget ends.

What is begun when, and who knows whom: ``flight``. What a sampler is told: ``draws``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from merge_core.errors import ItemError, MergeError, NonFiniteError
from search.run import suspicion
from search.run.cuts import cuts
from search.run.draws import Draws
from search.run.first_plans import plannable, refuse_other_types
from search.run.flight import Flight
from search.run.prior import Prior, taken_over
from search.run.resume import begin_or_check
from search.run.steps import Steps, steps
from search.samplers.registry import find
from search.samplers.shipped import has_hops
from search.space.space import Space
from search.space.starting_points import PARENT, Baseline, baselines, generation_mean, mean_name
from search.spec.study_file import StudySpec
from search.storage.study_record import Record
from search.trial.budget import NO_CHANGE, Budget, Change, End, searched
from search.trial.progress import Progress
from search.trial.settle import Wanted
from search.trial.slopes import ALONE, untrainable
from search.trial.trial import Trial, kind_of
from search.trial.worker import Bench

OWN_FAULTS = (NonFiniteError.__name__, ItemError.__name__)  # that always come again
MEMORY = ("MemoryError", "DefaultCPUAllocator")  # words of what comes again on the same machine


def search(
    spec: StudySpec,
    record: Record,
    bench: Bench,
    progress: Progress,
    stop: Callable[[], bool],
    change: Change = NO_CHANGE,
    accept: bool = False,
    force: bool = False,
) -> End | None:
    """Settle the trials that are still to be done.

    Args:
        spec: The study.
        record: Where it is stored.
        bench: Builds and scores its candidates, ``bench.count`` at a time.
        progress: Is told of every settled trial.
        stop: Asked before each trial is begun.
        change: What this run has instead of the study file's budget.
        accept: Whether the environment may be another one than the study's.
        force: Whether to search where all baselines score the same.

    Returns:
        Which part of the budget ended the search; None if ``stop`` did.

    Raises:
        MergeError: Parents, tasks or environment are others than before, no parent works,
            all baselines score the same, or several candidates failed alike.
        InterruptedStudyError: What failed was no candidate.
    """
    prior = _begun(spec, record, bench, progress, accept=accept)
    space = bench.builder.space
    first = [*baselines(spec, space, prior.baselines), *cuts(spec, record, bench, progress)]
    pending = plannable(bench.builder, _pending(first, record), progress.notice)
    budget = _budget(spec, record.trials, space, change, progress)
    left = max(0, budget.trials - searched(record.trials))
    progress.begin(
        len(record.trials) + len(pending) + left, record.trials, budget.hours, bench.count
    )
    flight, stepping = Flight(spec, record, bench, progress), steps(spec, bench, progress)
    if pending and not _settled(flight, pending, stop):
        return None
    if pending:
        progress.stage(f"computed once for all candidates so far: {bench.told()['once']}")
    _check_baselines(record.trials)
    suspicion.check_baselines(record, bench, progress, force=force)
    loop = _Loop(spec, flight, prior, stepping, budget)
    end = loop.searched(stop)
    return None if end is None else _ended(loop, end, progress, stop)


def _begun(
    spec: StudySpec, record: Record, bench: Bench, progress: Progress, *, accept: bool
) -> Prior:
    """Store how the study begins, or check that it goes on as it began; return what it takes over.

    Raises:
        MergeError: It does not, its routers cannot be trained, or a baseline cannot be scored.
    """
    prior, about = taken_over(spec, record, bench), record.about
    if about is None or spec.recipes.keys() - about["baselines"].keys():  # before they are stored
        first = baselines(spec, bench.builder.space, prior.baselines)
        refuse_other_types(bench.builder, first, lambda line: None)
    for notice in (*begin_or_check(spec, record, bench, accept=accept), *prior.notices()):
        progress.notice(notice)
    if rule := untrainable(spec, bench.tasks):
        raise MergeError(f"recipe.moe.gate_mode: {rule}")
    return prior


def _settled(flight: Flight, pending: Sequence[Baseline], stop: Callable[[], bool]) -> bool:
    """Settle baselines; return whether all of them are, ``stop`` having said nothing."""
    flight.phase("baselines")
    for one in pending:
        if stop():
            flight.land()
            return False
        flight.begin(Wanted(one.recipe, one.name, one.params))
    flight.land()
    return True


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
    loop.flight.begin(Wanted(mean.recipe, mean.name, mean.params), counted=False)
    loop.flight.land()
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


class _Loop:
    """Which trials are begun, one after the other, by steps or by draws.

    Attributes:
        flight: Where they are under way.
    """

    def __init__(
        self, spec: StudySpec, flight: Flight, prior: Prior, steps: Steps | None, budget: Budget
    ) -> None:
        self._spec, self.flight, self._steps, self._budget = spec, flight, steps, budget
        self._space = flight.bench.builder.space
        self._trials = flight.record.trials
        distributions = self._space.distributions()
        objectives = flight.bench.tasks.aggregate.objectives
        auto = spec.search.sampler == "auto" and not has_hops(distributions)
        # CMA-ES has one objective
        maker = find("tpe" if auto and objectives > 1 else spec.search.sampler)
        self._draws = Draws(spec, self._space, maker, prior.frozen(distributions), objectives)

    def searched(self, stop: Callable[[], bool]) -> End | None:
        """Search until the budget ends, or, with None, until ``stop`` says so."""
        while (end := self._end()) is None:
            if stop():
                self.flight.land()
                return None
            if not (self._stepped() or self._drawn()):
                end = End("gradient", "the held-out items' loss falls no more")
                break
        self.flight.land()
        return end

    def averaged(self) -> Baseline | None:
        """Return the mean of the last whole generation, if there is one that is not settled.

        It is no draw: the budget does not count it, and no sampler learns from it.
        """
        drawn, count = any(map(Trial.was_drawn, self._trials)), searched(self._trials)
        if not drawn or any(trial.baseline == mean_name(count) for trial in self._trials):
            return None
        self._draws.learn(self._trials, self.flight.tickets)
        point = self._draws.mean(self._trials, near=self._stepped_first())
        return None if point is None else generation_mean(self._space, count, point)

    def _end(self) -> End | None:
        """Return why no more trials are begun, by those that the next one may know."""
        known = self.flight.known()
        return self._budget.end(known, self.flight.waiting(), self.flight.bench.count)

    def _stepped(self) -> bool:
        """Settle the next step by gradient; return whether there is one."""
        if self._steps is None:
            return False
        step = self._steps.next(self._trials, self._budget.trials)
        if step is None:
            return False
        self.flight.phase("gradient")
        self.flight.begin(Wanted(self._space.recipe(step.point), params=step.point, step=step))
        self.flight.land()  # the next one goes on from what it measures
        return True

    def _drawn(self) -> bool:
        """Begin what the sampler proposes next; return whether it proposes something."""
        if self._spec.search.sampler == ALONE:
            return False
        self.flight.phase("drawing")
        params = self._draws.next(self.flight, near=self._stepped_first())
        self.flight.begin(Wanted(self._space.recipe(params), params=params))
        return True

    def _stepped_first(self) -> bool:
        return self._steps is not None and any(t.gradient for t in self._trials)


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

"""The search: baselines first, then ask, settle, store, until the budget ends.

The sampler works on an in-memory study that is filled from the stored trials; only settled trials
reach either. Before every ask the sampler is made anew from (study seed, number of settled trials),
so a run that was killed and started again draws what an unbroken one draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from merge_core.errors import MergeError
from merge_core.recipe.schema import Recipe
from search.samplers.registry import SAMPLERS, ask
from search.space.starting_points import Baseline, baselines
from search.spec.study_file import StudySpec, changed_paths
from search.storage.study_record import Record, Settled, frozen, open_record
from search.trial.trial import settle
from search.trial.workbench import Workbench

if TYPE_CHECKING:
    import optuna


class Progress(Protocol):
    """Who is told how the run goes."""

    def begin(self, total: int, settled: list[Settled]) -> None:
        """The search starts or resumes; ``total`` trials are planned."""
        ...

    def settled(self, trial: Settled) -> None:
        """One more trial is stored."""
        ...

    def stage(self, text: str) -> None:
        """Something else goes on now."""
        ...

    def notice(self, text: str) -> None:
        """Something that whoever reads the result must know."""
        ...


def open_for(spec: StudySpec) -> Record:
    """Open the study's record for writing, and make sure that it is this study's.

    Raises:
        MergeError: The study began with another study file; the changed key paths are listed.
    """
    objectives = len(spec.scores) if spec.aggregate == "apart" else 1
    record = open_record(spec.storage, spec.name, create=True, objectives=objectives)
    about = record.about
    if about is not None:
        changed = changed_paths(about["study"], dict(spec.data))
        if changed:
            raise MergeError(
                f"study {spec.name!r} in {record.url} began with another study file; changed: "
                f"{', '.join(changed)}. Change it back, or start anew under another name or storage"
            )
    elif record.trials:
        raise MergeError(f"study {spec.name!r} in {record.url} was not written by mergetune")
    return record


def search(
    spec: StudySpec,
    record: Record,
    bench: Workbench,
    progress: Progress,
    stop: Callable[[], bool],
) -> bool:
    """Settle the trials that are still to be done.

    Args:
        spec: The study.
        record: Where it is stored.
        bench: What its trials are made with.
        progress: Is told of every settled trial.
        stop: Asked between two trials.

    Returns:
        Whether the budget was used up; False if ``stop`` ended the search.

    Raises:
        MergeError: Parents or tasks are not those that the study began with, or no baseline works.
    """
    _check_same(record, bench)
    first = baselines(spec, bench.space)
    total = len(first) + (spec.search.trials if bench.space.dimensions else 0)
    progress.begin(total, record.trials)
    loop = _Loop(spec, record, bench)
    while (number := len(record.trials)) < total:
        if number >= len(first) and _out_of_time(spec, record.trials):  # no report without them
            break
        if stop():
            return False
        if number == len(first):  # also where the run was killed just before it
            _check_baselines(record.trials)
        trial = loop.baseline(first[number]) if number < len(first) else loop.asked()
        progress.settled(trial)
        if number == len(first) - 1:
            progress.stage(f"computed once for all candidates so far: {bench.once}")
    return True


class _Loop:
    def __init__(self, spec: StudySpec, record: Record, bench: Workbench) -> None:
        self._spec, self._record, self._bench = spec, record, bench
        self._distributions = bench.space.distributions()
        several = bench.aggregate.objectives > 1
        auto = several and spec.search.sampler == "auto"  # CMA-ES has one objective
        self._maker = SAMPLERS.get("tpe" if auto else spec.search.sampler)
        self._study = _sampler_study(bench.aggregate.objectives)
        for trial in record.trials:
            self._learn(trial)

    def baseline(self, baseline: Baseline) -> Settled:
        """Settle one baseline."""
        trial = self._settle(baseline.recipe, baseline=baseline.name, params=baseline.params)
        self._learn(trial)
        return trial

    def asked(self) -> Settled:
        """Settle what the sampler proposes next."""
        import optuna

        done = self._record.trials
        seed = self._spec.search.seed
        running = ask(
            self._study,
            self._distributions,
            self._maker,
            _start(done),
            study_seed=seed,
            settled=len(done),
        )
        trial = self._settle(self._bench.space.recipe(running.params), params=running.params)
        failed = optuna.trial.TrialState.FAIL if trial.state == "failed" else None
        self._study.tell(running, trial.values or trial.value, state=failed)
        return trial

    def _settle(self, recipe: Recipe, **known: Any) -> Settled:
        done = self._record.trials
        trial = settle(self._bench, recipe, number=len(done), earlier=done, **known)
        self._record.add(trial, self._distributions)
        return trial

    def _learn(self, trial: Settled) -> None:
        """Tell the sampler's study; trials outside the space would shrink what samplers see."""
        if trial.params:
            self._study.add_trial(frozen(trial, self._distributions))


def _sampler_study(objectives: int) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=["maximize"] * objectives)


def _start(trials: list[Settled]) -> Mapping[str, Any] | None:
    """Return the point of the best baseline that lies in the space."""
    points = [t for t in trials if t.baseline and t.params and t.value is not None]
    best = max(points, key=lambda t: t.value or 0.0, default=None)
    return None if best is None else best.params


def _out_of_time(spec: StudySpec, trials: list[Settled]) -> bool:
    hours = spec.search.hours
    spent = sum(sum(trial.seconds.values()) for trial in trials)
    return hours is not None and spent >= hours * 3600


def _check_baselines(trials: list[Settled]) -> None:
    if all(trial.state == "failed" for trial in trials):
        raise MergeError(
            f"every baseline failed, so the search was not begun; the first: {trials[0].reason}"
        )


def _check_same(record: Record, bench: Workbench) -> None:
    about, now = record.about, bench.about()
    if about is None:
        record.begin({**now, "folder": record.path_to(bench.spec.folder)})
        return
    changed = bench.changed_parents(about)
    if changed:
        raise MergeError(
            f"the weights of {', '.join(changed)} are not those that study {record.name!r} began "
            f"with; put them back, or start a new study"
        )
    parts = {"tasks": "tasks", "score": "shares of tasks in groups", "pools": "items"}
    parts |= {"steering": "tasks that steer the search", "baselines": "baselines"}
    for key, what in parts.items():
        if now.get(key) != about.get(key):  # `steering` is there where something steers
            raise MergeError(
                f"the {what} of study {record.name!r} are not those it began with; "
                f"put them back, or start a new study"
            )

"""A search once more from its seed, in a storage of its own: does it have the same trials?"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from merge_core.errors import MergeError
from search.run.loop import search
from search.run.resume import about_of
from search.space.starting_points import MEAN
from search.spec.changes import Difference, unlike
from search.spec.study_file import StudySpec
from search.storage.open import open_record
from search.storage.study_record import Record
from search.trial.budget import Change, searched
from search.trial.environment import asked_in, differences, made_in
from search.trial.progress import Progress
from search.trial.router_file import without_file
from search.trial.tasks import SEARCH
from search.trial.trial import Trial
from search.trial.worker import Worker

Verdict = Literal["identical", "recipes differ", "weights differ", "scores differ"]


class _Part(NamedTuple):
    """A part of a search.

    Args:
        trials: How many there are at its end.
        searched: After so many searched ones it ends with their mean; None: without.
        workers: Candidates in flight.
        asked: ``threads`` and ``batch_size`` of its run, as far as they are known.
    """

    trials: int
    searched: int | None
    workers: int
    asked: Mapping[str, int]


def search_again(
    spec: StudySpec, record: Record, worker: Worker, progress: Progress
) -> dict[str, Any]:
    """Search as the study did, up to the first trial that is another one.

    With as many trials, as many in flight, with the batch sizes and threads of its runs, means of
    generations where the study has them, and baselines that came later where they came.
    Measured times are not compared, and nothing is written but to a temporary storage.

    Args:
        spec: The study as its record says.
        record: The study.
        worker: Has it open; nothing was scored with it.
        progress: Is told how it goes.

    Returns:
        ``verdict``, how many ``trials`` the study has and how many were found to be the ``same``,
        in order; and where one is not, of the ``first`` such its ``number`` and the ``reason``, and
        the ``environment``: ``key``, ``was`` and ``is`` of what differs from the run that made it.

    Raises:
        MergeError: The study's trials depend on how fast its workers were; or it cannot be run.
    """
    if spec.search.order == "free":
        raise MergeError(
            "--search: the study has `search.order: free`, so its trials depend on how fast each "
            "worker was; without --search each of them is built and scored again"
        )
    with tempfile.TemporaryDirectory(prefix="mergetune-") as folder:
        again = _Again(spec, record, worker, Path(folder))
        for part in _parts(record, spec.baselines):
            again.search(part, progress)
        return again.found()


def _parts(record: Record, own: Collection[str]) -> Iterator[_Part]:
    """Yield the parts of a study's search.

    They end at each mean, where a run did otherwise what runs may, and before each of the user's
    ``own`` baselines that came when the search had begun.
    """
    starts = {run["trials"]: _how(run) for run in record.runs}  # of several the last
    how = starts.get(0, (1, {}))
    drawn = False
    for trial in record.trials:
        now = starts.get(trial.number, how)
        if trial.number and (now != how or (drawn and trial.baseline in own)):
            yield _Part(trial.number, None, *how)
        how, drawn = now, drawn or trial.was_searched()
        if trial.is_mean():
            yield _Part(trial.number + 1, int(str(trial.baseline).removeprefix(MEAN)), *how)
    yield _Part(len(record.trials), None, *how)


def _how(run: Mapping[str, Any]) -> tuple[int, Mapping[str, int]]:
    return run["workers"], asked_in(run["environment"])


class _Again:
    """The search that is done again, compared with the first one as it goes.

    It begins with parents and tasks as they are here: where they are others, its trials are.
    """

    def __init__(self, spec: StudySpec, record: Record, worker: Worker, folder: Path) -> None:
        self._spec, self._record, self._worker = spec, record, worker
        url, several = f"sqlite:///{folder}/study.db", max(record.objectives, 1)
        self._here = open_record(url, record.name, create=True, objectives=several)
        if record.prior is not None:
            self._here.keep_prior(record.prior)
        place = self._here.path_to(spec.folder)
        first = self._until(next((t.number for t in record.trials if t.was_searched()), None))
        self._here.begin({**about_of(first, worker), "folder": place}, worker.tasks.item_ids())
        worker.builder.results = folder  # for routers that are trained
        self._same, self._first = 0, ""

    def _until(self, end: int | None) -> StudySpec:
        """Return the study with those baselines that it had when it had so many trials."""
        known = {trial.baseline for trial in self._record.trials[:end]}
        kept = {name: x for name, x in self._spec.baselines.items() if name in known}
        return self._spec.model_copy(update={"baselines": kept})

    def search(self, part: _Part, progress: Progress) -> None:
        """Do a part of it."""
        trials = self._here.trials
        most = max(self._spec.search.trials, searched(self._record.trials))
        more = (most if part.searched is None else part.searched) - searched(trials)
        comes = self._record.trials[len(trials) : part.trials]
        own = any(trial.baseline in self._spec.baselines for trial in comes)
        if not (more > 0 or own) or not comes or self._first:
            return
        self._worker.count = part.workers  # one after the other, with as many in flight
        self._worker.use(part.asked)
        change = Change(more=more) if more > 0 else Change(trials=max(1, searched(trials)))
        begun = itertools.count(len(trials) + 1)

        def ends() -> bool:  # is asked before each trial is begun
            self._compare()
            return next(begun) > part.trials or bool(self._first)

        spec = self._until(part.trials)
        search(spec, self._here, self._worker, progress, ends, change, force=True)
        self._compare()

    def found(self) -> dict[str, Any]:
        """Return what ``search_again`` returns."""
        trials = self._record.trials
        row = {"verdict": "identical", "trials": len(trials), "same": self._same, "first": None}
        if self._same == len(trials):
            return row
        trial = trials[self._same]
        verdict, reason = self._unlike(trial) or ("recipes differ", "no such trial comes now")
        was = made_in(self._record.about or {}, self._record.runs, trial.number)
        here = self._here.runs
        now = here[-1]["environment"] if here else {}
        environment = [one.plain() for one in differences(was, now)]
        first = {"number": trial.number, "reason": reason}
        return row | {"verdict": verdict, "first": first, "environment": environment}

    def _compare(self) -> None:
        both = zip(self._record.trials, self._here.trials, strict=False)
        for trial, _ in itertools.islice(both, self._same, None):
            if found := self._unlike(trial):
                self._first = found[1]
                return
            self._same += 1

    def _unlike(self, was: Trial) -> tuple[Verdict, str] | None:
        """Return how the trial of that number is another one now, if it is there and is."""
        now = next((x for x in self._here.trials[was.number :]), None)
        if now is None:
            return None
        changed = unlike(without_file(was.recipe).plain(), without_file(now.recipe).plain())
        if changed or (was.baseline, was.state) != (now.baseline, now.state):
            return "recipes differ", _of_recipes(was, now, changed)
        if was.weights_digest != now.weights_digest:
            return "weights differ", f"digest is {now.weights_digest}, was {was.weights_digest}"
        left = self._worker.tasks.measured(SEARCH)
        scores = [{k: list(x) for k, x in trial.search.scores.items()} for trial in (was, now)]
        others = [
            task
            for task in scores[0]
            if task not in left and scores[0][task] != scores[1].get(task)
        ]
        return ("scores differ", f"of {', '.join(others)}") if others else None


def _of_recipes(was: Trial, now: Trial, changed: Sequence[Difference]) -> str:
    if changed:
        return "; ".join(map(str, changed))
    names = [trial.baseline or "drawn" for trial in (was, now)]
    return f"it was {was.state} ({names[0]}), is {now.state} ({names[1]})"

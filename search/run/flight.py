"""The trials that are under way: begun in order, and settled in the order of their beginning.

With k jobs at a time, trial n knows the trials 0 .. n - k, whoever was fast: so a study is the same
for the same k, however often it was killed. Baselines and draws have such a window each; a step by
gradient knows all before it, and so does the first draw. ``order: free`` settles whatever is done
first instead, and lets the next trial know all that are settled.
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, wait

from merge_core.errors import MergeError
from search.run.environment import keep_engine
from search.spec.study_file import StudySpec
from search.storage.study_record import Record
from search.trial.known import Known
from search.trial.progress import Phase, Progress
from search.trial.settle import Underway, Wanted
from search.trial.trial import Trial
from search.trial.worker import Bench

ALIKE = 8  # candidates of the search that fail for one reason, one after the other: an end
DRAWN, STEP, BASELINE = "drawn", "step", "baseline"


class Flight:
    """Begins trials, and stores those that are settled.

    Args:
        spec: The study.
        record: Where settled trials are stored.
        bench: Does ``bench.count`` jobs at a time.
        progress: Is told of every settled trial.

    Attributes:
        tickets: Number of a settled trial -> its ticket, what ``begun`` was when it was begun here,
            in fixed order its number; trials of earlier runs have none.
    """

    def __init__(self, spec: StudySpec, record: Record, bench: Bench, progress: Progress) -> None:
        self.record, self.bench, self._progress = record, bench, progress
        self.tickets: dict[int, int] = {}
        self._free = spec.search.order == "free"
        self._distributions = bench.builder.space.distributions()
        self._underway: dict[int, Underway] = {}  # by ticket, in the order of their beginning
        self._counted, self._reasons = True, list[str]()
        self._known, self._settled = Known(), Known()
        self._last: dict[str, int] = {}  # kind -> number of the last settled trial of it
        for trial in record.trials:
            self._note(trial)
        self._engine: set[str] = set()  # what of it this run has stored

    @property
    def begun(self) -> int:
        """Number of the next trial, were all under way settled; its ticket."""
        return len(self.record.trials) + len(self._underway)

    def waiting(self) -> int:
        """Return how many searched trials are begun, or settled, beyond the known ones."""
        later = self.record.trials[len(self._known.trials) :]
        flying = (underway.wanted.baseline is None for underway in self._underway.values())
        return sum(trial.was_searched() for trial in later) + sum(flying)

    def known(self, kind: str = DRAWN) -> Known:
        """Return the trials that the next one knows, and settle what must be for that."""
        self._make_room()
        trials, window = self.record.trials, 1 if kind == STEP else self.bench.count
        start = max((last for other, last in self._last.items() if other != kind), default=-1) + 1
        count = len(trials) if self._free else max(self.begun - window + 1, start)
        for trial in trials[len(self._known.trials) : count]:
            self._known.add(trial)
        return self._known

    def phase(self, name: Phase) -> None:
        """Say which part of the search goes on."""
        self._progress.phase(name)

    def begin(self, wanted: Wanted, *, counted: bool = True) -> None:
        """Begin a trial; its ticket is the number that ``begun`` is before.

        Args:
            wanted: What is to become a trial.
            counted: Whether ``progress`` was told to expect it.
        """
        self.known(_kind(wanted.baseline, wanted.step))
        self._counted = counted
        self._underway[self.begun] = Underway(self.bench, wanted, self._known)

    def land(self) -> None:
        """Settle all that are under way."""
        while self._underway:
            self._settle(self._next())

    def _make_room(self) -> None:
        while len(self._underway) >= self.bench.count:
            self._settle(self._next())

    def _next(self) -> int:
        """Return the ticket of the trial to settle next, and wait for it."""
        if self._free:
            pending = [f for x in self._underway.values() for f in x.futures]
            while not any(underway.done() for underway in self._underway.values()):
                pending = [*wait(pending, return_when=FIRST_COMPLETED).not_done]
            return next(ticket for ticket, x in self._underway.items() if x.done())
        return next(iter(self._underway))

    def _settle(self, ticket: int) -> None:
        trial = self._underway[ticket].settled(len(self.record.trials), self._settled)
        del self._underway[ticket]
        self._keep_engine()
        self.tickets[trial.number] = ticket
        self.record.add(trial, self._distributions)
        self._note(trial)
        if self._counted:
            self._progress.settled(trial)
        if trial.was_searched():
            self._check_alike(trial)

    def _note(self, trial: Trial) -> None:
        self._settled.add(trial)
        self._last[_kind(trial.baseline, trial.gradient)] = trial.number

    def _keep_engine(self) -> None:
        seen = self.bench.seen
        if seen.keys() - self._engine:
            self._engine |= seen.keys()
            for notice in keep_engine(self.record, seen):
                self._progress.notice(notice)

    def _check_alike(self, trial: Trial) -> None:
        """Stop where candidates of this run fail one after the other, all for the same reason."""
        self._reasons = [*self._reasons, trial.reason][-ALIKE:]
        if trial.reason and self._reasons == [trial.reason] * ALIKE:
            raise MergeError(
                f"the last {ALIKE} candidates failed for one reason: {trial.reason}; mend that, "
                "or run again to go on"
            )


def _kind(baseline: str | None, step: object) -> str:
    """Return whether a trial, or what is to become one, is a baseline, a step, or drawn."""
    if baseline is not None:
        return BASELINE
    return DRAWN if step is None else STEP

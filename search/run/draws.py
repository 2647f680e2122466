"""What the sampler proposes next: an in-memory study that is told the trials, in their order.

Before every ask the sampler is made anew from (study seed, number of the trial), so a run that was
killed and started again draws what an unbroken one draws. Trials that are under way, or that an
unbroken run had under way at that moment, are running ones to the sampler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search.run.flight import Flight
from search.run.steps import before, best_point
from search.samplers.ask import STUB, ask, mean_of
from search.samplers.registry import Maker, Start
from search.samplers.shipped import make_near
from search.space.space import Space
from search.spec.study_file import StudySpec
from search.storage.trial_codec import told
from search.trial.trial import Trial

if TYPE_CHECKING:
    import optuna


class Draws:
    """The draws of one study.

    Args:
        spec: The study.
        space: Its knobs.
        maker: Of the sampler.
        prior: Trials of another study that it is told first.
        objectives: How many numbers a trial has.
    """

    def __init__(
        self,
        spec: StudySpec,
        space: Space,
        maker: Maker,
        prior: Sequence[optuna.trial.FrozenTrial],
        objectives: int,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(directions=["maximize"] * objectives)
        self._study.add_trials(prior)
        self._seed, self._free = spec.search.seed, spec.search.order == "free"
        self._space, self._maker = space, maker
        self._distributions = space.distributions()
        self._told = 0  # trials of the record, the first ones
        self._running: dict[
            int, optuna.Trial | int
        ] = {}  # by ticket: the trial here, or its number

    def next(self, flight: Flight, *, near: bool) -> dict[str, Any]:
        """Return a value for every active knob of the next trial.

        Args:
            flight: Knows which trials the next one knows, and which are under way.
            near: Whether to draw close around the best.

        Raises:
            ParameterError: The sampler cannot draw from this space.
        """
        known = flight.known()
        self.learn(known.trials, flight.tickets)
        for trial in flight.record.trials[len(known.trials) :]:
            if trial.number not in self._running:
                self._running[trial.number] = self._add_running(trial)
        settled = len(known.trials) - known.means
        arguments = self._made_for(known.trials, near)
        flying = len(self._running)
        running = ask(*arguments, settled=settled, conditions=self._space, in_flight=flying)
        self._running[flight.begun] = running
        return running.params

    def mean(self, trials: Sequence[Trial], *, near: bool) -> dict[str, Any] | None:
        """Return the mean of the last whole generation of trials that it has learnt."""
        return mean_of(*self._made_for(trials, near))

    def learn(self, trials: Sequence[Trial], tickets: Mapping[int, int]) -> None:
        """Tell the sampler's study of the first trials of the record, those that it does not know.

        Trials outside the space would shrink what samplers see.

        Args:
            trials: The first ones, by number.
            tickets: Number -> ticket of those that were drawn here.
        """
        for trial in trials[self._told :]:
            running = self._running.pop(tickets.get(trial.number, trial.number), None)
            if running is not None:
                self._tell(running, trial)
            elif trial.params and trial.state != "unscored" and not trial.is_mean():
                self._study.add_trial(told(trial, self._distributions))
        self._told = max(self._told, len(trials))

    def _tell(self, running: optuna.Trial | int, trial: Trial) -> None:
        import optuna

        failed = optuna.trial.TrialState.FAIL
        if self._free and not isinstance(running, int):  # in the order of settling
            running.set_user_attr(STUB, True)
            self._study.tell(running, state=failed)
            self._study.add_trial(told(trial, self._distributions))
            return
        state = failed if trial.state == "failed" else None
        self._study.tell(running, trial.values or trial.value, state=state)

    def _add_running(self, trial: Trial) -> int:
        import optuna

        number = len(self._study.get_trials(deepcopy=False))
        self._study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING,
                params=dict(trial.params),
                distributions={name: self._distributions[name] for name in trial.params},
            )
        )
        return number

    def _made_for(
        self, trials: Sequence[Trial], near: bool
    ) -> tuple[optuna.Study, dict[str, Any], Maker, Start, int]:
        """Return the first arguments of ``ask`` and ``mean_of``."""
        start = best_point(before(trials, Trial.was_drawn))
        maker = make_near if near else self._maker
        return self._study, self._distributions, maker, start, self._seed

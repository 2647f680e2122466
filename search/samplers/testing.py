"""Laws that every sampler keeps: subclass ``SamplerContract``, set ``name``, run pytest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.samplers.ask import Conditions, ask
from search.samplers.registry import SamplerPlugin, find

Params = dict[str, Any]

NUMBERS: dict[str, tuple[BaseDistribution, Any]] = {  # with the middle of the range
    "plain": (FloatDistribution(-1.0, 2.0), 0.5),
    "log": (FloatDistribution(1e-4, 1.0, log=True), 1e-2),
    "step": (FloatDistribution(0.1, 1.0, step=0.05), 0.55),
    "int": (IntDistribution(2, 30, step=4), 14),
    "intlog": (IntDistribution(1, 64, log=True), 8),
    "single": (FloatDistribution(0.5, 0.5), 0.5),
}
CHOICES: dict[str, tuple[BaseDistribution, Any]] = {
    "method": (CategoricalDistribution(("linear", "ties", "slerp")), "linear"),
    "normalize": (CategoricalDistribution((False, True)), False),
}
BEST = 0.25  # where the toy landscape peaks, as a share of every knob's range


def toy_score(params: Params) -> float:
    """Return the height of a landscape with one peak: 0 at ``BEST`` of every range, else below."""
    loss = 0.0
    for name, value in params.items():
        d, _ = {**NUMBERS, **CHOICES}[name]
        if isinstance(d, CategoricalDistribution):
            loss += 0.05 * (value != d.choices[-1])
        elif isinstance(d, FloatDistribution | IntDistribution) and not d.single():
            low, x, high = (math.log(v) if d.log else v for v in (d.low, value, d.high))
            loss += ((x - low) / (high - low) - BEST) ** 2
    return -loss


class OfTheMethod:
    """``ask.Conditions``: two of ``NUMBERS`` belong to one method each."""

    deciding = ("method",)
    owners: Mapping[str, str] = {"step": "ties", "int": "slerp"}

    def active(self, drawn: Mapping[str, Any]) -> frozenset[str]:
        """Return what a method has."""
        others = {name for name, owner in self.owners.items() if owner != drawn["method"]}
        return frozenset({*NUMBERS, *CHOICES} - others)

    def mended(self, drawn: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the values themselves: no two points are one candidate."""
        return drawn


def inside(value: Any, distribution: BaseDistribution) -> bool:
    """Return whether a value has its distribution's type, lies in its range and on its grid."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    kind = int if isinstance(distribution, IntDistribution) else float
    steps = (value - distribution.low) / distribution.step if distribution.step else 0.0
    in_range = distribution.low <= value <= distribution.high
    return type(value) is kind and in_range and abs(steps - round(steps)) < 1e-8


class SamplerContract:
    """The laws of a registered sampler; set ``name``, and ``categoricals`` if it cannot draw them.

    The sampler is asked as in a real study: made anew for every ask, on a study in memory.
    """

    name: str
    categoricals = True
    trials = 30  # how many a law looks at; more than the random ones that a sampler begins with

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """Every kind of knob that the sampler says it can draw."""
        return {name: d for name, (d, _) in self._knobs().items()}

    @property
    def start(self) -> Params:
        """The middle of every range."""
        return {name: middle for name, (_, middle) in self._knobs().items()}

    def _knobs(self) -> dict[str, tuple[BaseDistribution, Any]]:
        return {**NUMBERS, **(CHOICES if self.categoricals else {})}

    def test_every_value_lies_inside_its_distribution(self) -> None:
        for trial in self.searched(self.trials).trials:
            assert trial.params.keys() == self.space.keys()
            for name, value in trial.params.items():
                assert inside(value, self.space[name]), f"{name}: {value!r}"

    @pytest.mark.parametrize("fails", [0, 4])
    def test_study_resumed_anywhere_draws_what_an_unbroken_one_draws(self, fails: int) -> None:
        unbroken = self.searched(self.trials, fails=fails)
        for stop in self._stops():
            resumed = self.searched(self.trials, fails=fails, before=unbroken.trials[:stop])
            for there, here in zip(unbroken.trials, resumed.trials, strict=True):
                assert there.params == here.params, f"stopped at {stop}, trial {there.number}"

    def test_knobs_that_only_some_choices_have_are_drawn_for_those_alone(self) -> None:
        conditions = OfTheMethod() if self.categoricals else None
        unbroken = self.searched(self.trials, conditions=conditions)
        for trial in unbroken.trials:
            active = conditions.active(trial.params) if conditions else self.space.keys()
            assert trial.params.keys() == active
            assert all(inside(value, self.space[name]) for name, value in trial.params.items())
        for stop in self._stops():
            before = unbroken.trials[:stop]
            resumed = self.searched(self.trials, conditions=conditions, before=before)
            assert [t.params for t in resumed.trials] == [t.params for t in unbroken.trials]

    def test_with_several_in_flight_a_resumed_study_draws_what_an_unbroken_one_draws(self) -> None:
        """Trial n is asked when exactly the trials up to n - 3 are told, in order."""
        unbroken = self.in_flight(self.trials)
        for stop in self._stops():
            resumed = self.in_flight(self.trials, before=unbroken[:stop])
            assert resumed == unbroken, f"stopped at {stop}"

    def test_another_seed_draws_other_trials(self) -> None:
        one, two = (self.searched(3, seed=seed).trials for seed in (1, 2))
        assert [t.params for t in one] != [t.params for t in two]

    def test_trials_in_flight_are_not_drawn_twice(self) -> None:
        study, maker = self.searched(12), self.maker
        for _ in range(3):
            ask(study, self.space, maker, self.start, study_seed=0, settled=12)
        one, two, three = (t.params for t in study.trials[12:])
        assert one != two != three != one

    def test_failed_trials_do_not_stop_the_search(self) -> None:
        states = [t.state for t in self.searched(30, fails=2).trials]
        assert states.count(TrialState.FAIL) == states.count(TrialState.COMPLETE) == 15

    @pytest.mark.parametrize("direction", [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE])
    def test_best_trial_is_better_than_the_middle(self, direction: StudyDirection) -> None:
        sign = 1 if direction == StudyDirection.MAXIMIZE else -1
        best = self.searched(40, direction=direction).best_value * sign
        assert best > toy_score(self.start)

    def test_draws_without_a_start(self) -> None:
        """Not every study has a baseline inside its ranges."""
        trial = ask(optuna.create_study(), self.space, self.maker, None, study_seed=0, settled=0)
        assert all(inside(value, self.space[name]) for name, value in trial.params.items())

    def _stops(self) -> tuple[int, ...]:
        return (1, self.trials // 4, self.trials // 2, self.trials - 1)

    @property
    def maker(self) -> SamplerPlugin:
        """The registered sampler; looking it up reads every installed package's entry points."""
        return find(self.name)

    def in_flight(self, trials: int, before: Sequence[Params] = ()) -> list[Params]:
        """Return the parameters of a study with three candidates in flight.

        It begins with trials that had these parameters ``before``: the last two of them run.
        """
        study, maker = optuna.create_study(direction="maximize"), self.maker
        drawn: list[Params] = []
        for number in range(trials):
            if number >= 3:
                study.tell(number - 3, toy_score(drawn[number - 3]))
            if number < len(before):
                running = optuna.trial.create_trial(
                    state=TrialState.RUNNING, params=before[number], distributions=self.space
                )
                study.add_trial(running)
            else:
                told = max(0, number - 2)
                ask(study, self.space, maker, self.start, study_seed=0, settled=told)
            drawn.append(study.get_trials(deepcopy=False)[number].params)
        return drawn

    def searched(
        self,
        trials: int,
        *,
        seed: int = 0,
        fails: int = 0,
        direction: StudyDirection = StudyDirection.MAXIMIZE,
        before: Sequence[FrozenTrial] = (),
        conditions: Conditions | None = None,
    ) -> optuna.Study:
        """Return a study of ``trials`` trials on the toy landscape, minimised: on its negative.

        Every so many-th trial ``fails`` (0: none). The study begins with copies of the trials
        ``before``, value by value, as one that is resumed. See ``ask`` for ``conditions``.
        """
        study, maker = optuna.create_study(direction=direction), self.maker
        sign = 1 if direction == StudyDirection.MAXIMIZE else -1
        for old in before:
            kept = {key: getattr(old, key) for key in ("state", "value", "params", "distributions")}
            study.add_trial(optuna.trial.create_trial(**kept))
        for number in range(len(before), trials):
            trial = ask(study, self.space, maker, self.start, seed, number, conditions)
            failed = fails and number % fails == 0
            value = None if failed else sign * toy_score(trial.params)
            study.tell(trial, value, TrialState.FAIL if failed else TrialState.COMPLETE)
        return study

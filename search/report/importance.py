"""Which knobs decided how good a candidate is, and how sure that is.

Of candidates that a sampler drew: PED-ANOVA (arXiv:2304.10255; with conditions arXiv:2601.20800) as
Optuna has it, how much a knob's distribution among the best candidates differs from that among all.
Beside every number stand the standard deviation over bootstrap samples of the candidates, and what
chance shows: the same number where values are dealt to the candidates anew.

Of steps by gradient, which all knobs take together: the mean of ``|dL / d knob| * range``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal

from search.trial.trial import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

LEAST = 20  # candidates: fewer say nothing
BEST = 0.2  # share of candidates that are the best ones
WORK = 500_000  # knobs times candidates of all evaluations: some seconds
SAMPLES = (8, 40)  # fewest and most bootstrap samples
SHUFFLES = (3, 20)  # the same of deals of values; more where there are few knobs
SEED = 0


@dataclass(frozen=True)
class Importance:
    """How important the knobs were, most important first.

    Args:
        by: ``draws`` or ``slopes``.
        knobs: Knob -> share of all knobs' importance, and the standard deviation of that.
        chance: Share that 19 of 20 knobs without any effect stay below; None: not known.
        count: Of candidates or steps.
    """

    by: Literal["draws", "slopes"]
    knobs: Mapping[str, tuple[float, float]]
    chance: float | None
    count: int


def importance(
    trials: Sequence[Trial], distributions: Mapping[str, BaseDistribution]
) -> Importance | None:
    """Return the importance of the knobs, by draws where there are enough, else by slopes.

    Args:
        trials: A study's.
        distributions: Of every knob that they have.
    """
    drawn = [t for t in trials if t.was_drawn() and t.params and t.value is not None]
    if len(drawn) >= LEAST:
        return _by_draws(drawn, distributions)
    steps = [t for t in trials if t.gradient is not None and t.gradient.slopes]
    return _by_slopes(steps, distributions) if len(steps) > 1 else None


def _by_draws(
    drawn: Sequence[Trial], distributions: Mapping[str, BaseDistribution]
) -> Importance | None:
    if len({t.value for t in drawn}) == 1:
        return None
    evaluate, random_ = _evaluator(len(drawn)), random.Random(SEED)
    values = [float(t.value or 0.0) for t in drawn]
    knobs = len({name for t in drawn for name in t.params})
    pairs = [(t.params, value) for t, value in zip(drawn, values, strict=True)]
    found = evaluate(pairs, distributions)
    total = sum(found.values())
    if not total:
        return None
    most = WORK // (knobs * len(drawn))
    samples = [
        evaluate(random_.choices(pairs, k=len(pairs)), distributions)
        for _ in range(min(max(most * 2 // 3, SAMPLES[0]), SAMPLES[1]))
    ]
    by_chance: list[float] = []
    for _ in range(min(max(most // 3, SHUFFLES[0]), SHUFFLES[1])):
        dealt = random_.sample(values, len(values))
        given = [(t.params, value) for t, value in zip(drawn, dealt, strict=True)]
        by_chance += evaluate(given, distributions).values()
    chance = sorted(by_chance)[int(0.95 * len(by_chance))] / total
    shares = [_shares(x) for x in samples]
    spread = {name: stdev([x.get(name, 0.0) for x in shares]) for name in found}
    knobs_ = {name: (share, spread[name]) for name, share in _shares(found).items()}
    return Importance("draws", _ordered(knobs_), chance, len(drawn))


def _shares(found: Mapping[str, float]) -> dict[str, float]:
    total = sum(found.values())
    return {name: x / total if total else 0.0 for name, x in found.items()}


Pairs = Sequence[tuple[Mapping[str, Any], float]]  # a candidate's knobs, and its value
Evaluate = Callable[[Pairs, Mapping[str, "BaseDistribution"]], dict[str, float]]


def _evaluator(count: int) -> Evaluate:
    """Return Optuna's evaluator as a function of candidates."""
    import warnings

    import optuna

    class Candidates(optuna.Study):
        """A study that holds what it is given; adding 1,000 trials one by one takes 2 s."""

        given: list[FrozenTrial]

        def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
            return self.given

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(direction="maximize")
    study = Candidates(made.study_name, made._storage)
    best = min(0.5, max(BEST, LEAST / 2 / count))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best)

    def evaluate(pairs: Pairs, distributions: Mapping[str, BaseDistribution]) -> dict[str, float]:
        study.given = [
            optuna.trial.FrozenTrial(
                number=i,
                state=optuna.trial.TrialState.COMPLETE,
                value=value,
                datetime_start=None,
                datetime_complete=None,
                params=dict(params),
                distributions={name: distributions[name] for name in params},
                user_attrs={},
                system_attrs={},
                intermediate_values={},
                trial_id=i,
            )
            for i, (params, value) in enumerate(pairs)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that conditions leave few trials: the spread says so
            return evaluator.evaluate(study)

    return evaluate


def _by_slopes(
    steps: Sequence[Trial], distributions: Mapping[str, BaseDistribution]
) -> Importance | None:
    ends = {n: (getattr(d, "low", 0.0), getattr(d, "high", 1.0)) for n, d in distributions.items()}
    widths = {name: float(high) - float(low) for name, (low, high) in ends.items()}
    each: dict[str, list[float]] = {}
    for trial in steps:
        assert trial.gradient is not None
        for name, slope in trial.gradient.slopes.items():
            each.setdefault(name, []).append(abs(slope) * widths.get(name, 1.0))
    means = {name: fmean(found) for name, found in each.items()}
    total = sum(means.values())
    if not total:
        return None
    knobs = {
        name: (
            means[name] / total,
            (stdev(found) / len(found) ** 0.5 if len(found) > 1 else 0.0) / total,
        )
        for name, found in each.items()
    }
    return Importance("slopes", _ordered(knobs), None, len(steps))


def _ordered(knobs: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    return dict(sorted(knobs.items(), key=lambda pair: (-pair[1][0], pair[0])))

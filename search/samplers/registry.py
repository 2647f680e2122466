"""Samplers by name, made anew for every ask, so that a killed study goes on as if it had not been.

Optuna stores trials, not the state of a sampler's random numbers: a study that is opened again with
the same seed draws its first trials once more. So a sampler here is a function of the space, the
start and a seed; the seed counts the trials, and everything else is read from the study.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

from merge_core.plugins import Registry

if TYPE_CHECKING:  # heavy: imported where they are needed
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

SIGMA_AT_START = 0.1  # of a knob's range, around a recipe that is known to be good
SIGMA_IN_MIDDLE = 1 / 6  # Optuna's choice; 0.1 is slower where nothing is known
STARTUP_TRIALS = 10  # random ones before tpe models anything

SAMPLERS = Registry(
    "sampler",
    "mergetune.samplers",
    {
        "auto": "search.samplers.registry:make_auto",
        "cma-es": "search.samplers.registry:make_cma",
        "random": "search.samplers.registry:make_random",
        "tpe": "search.samplers.registry:make_tpe",
    },
)


class Maker(Protocol):
    """What a plugin registers: makes the sampler of one ask; keeps nothing between calls."""

    def __call__(
        self, space: Mapping[str, BaseDistribution], start: Mapping[str, Any] | None, seed: int
    ) -> BaseSampler:
        """Return a sampler whose next draw depends on these arguments and the study's trials only.

        Args:
            space: Knob name -> distribution; the same at every ask of a study.
            start: Knob name -> value of a recipe known to be good, or None; it may be ignored.
            seed: In [0, 2**32), another at every ask.

        Raises:
            ParameterError: The sampler cannot draw from this space.
        """
        ...


def make_random(
    space: Mapping[str, BaseDistribution], start: Mapping[str, Any] | None, seed: int
) -> BaseSampler:
    """Return a sampler that draws each knob uniformly, log knobs uniformly in their logarithm."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def make_tpe(
    space: Mapping[str, BaseDistribution], start: Mapping[str, Any] | None, seed: int
) -> BaseSampler:
    """Return Optuna's multivariate tree-structured Parzen estimator; it draws choices too.

    It models only knobs that all complete trials have: one trial without parameters in the study
    makes it draw knob by knob. Source: Watanabe, arXiv:2304.11127.
    """
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, multivariate=True, n_startup_trials=STARTUP_TRIALS)


def make_cma(
    space: Mapping[str, BaseDistribution], start: Mapping[str, Any] | None, seed: int
) -> BaseSampler:
    """Return CMA-ES around the start, or around the middle of the ranges if there is none.

    Raises:
        ParameterError: A knob has choices, or ``start`` lacks a knob or lies outside its range.
    """
    from search.samplers.cma import CmaSampler

    return CmaSampler(space, start, SIGMA_AT_START if start else SIGMA_IN_MIDDLE, seed)


def make_auto(
    space: Mapping[str, BaseDistribution], start: Mapping[str, Any] | None, seed: int
) -> BaseSampler:
    """Return CMA-ES where all knobs are numbers, else TPE.

    Raises:
        ParameterError: As ``make_cma``, where all knobs are numbers.
    """
    from optuna.distributions import CategoricalDistribution

    choices = any(isinstance(d, CategoricalDistribution) and not d.single() for d in space.values())
    return (make_tpe if choices else make_cma)(space, start, seed)


def seed_for(study_seed: int, number: int) -> int:
    """Return the seed of a study's ask number ``number``: 32 bits, the same in every process."""
    digest = blake2b(f"{study_seed}\x1f{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def ask(
    study: Study,
    space: Mapping[str, BaseDistribution],
    maker: Maker,
    start: Mapping[str, Any] | None,
    study_seed: int,
    settled: int,
) -> Trial:
    """Ask for the next trial; BLAS keeps to one thread meanwhile, as torch needs the others.

    The draw depends on the arguments and on the study's trials. Trials in flight count: they are
    added to ``settled``, so that several asks before the first tell do not draw the same values.

    Args:
        study: In memory; its finished trials have the full space. Its sampler is replaced, and it
            gets one running trial.
        space: Knob name -> distribution.
        maker: See ``SAMPLERS``.
        start: See ``Maker``.
        study_seed: The study's seed, any whole number.
        settled: How many trials of the study are over, failed ones and baselines included.

    Returns:
        The running trial; ``.params`` has a value for every knob of the space.

    Raises:
        ParameterError: The sampler cannot draw from this space.
    """
    from optuna.trial import TrialState
    from threadpoolctl import threadpool_limits

    in_flight = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    study.sampler = maker(space, start, seed_for(study_seed, settled + in_flight))
    with threadpool_limits(limits=1, user_api="blas"):
        return study.ask(fixed_distributions=dict(space))

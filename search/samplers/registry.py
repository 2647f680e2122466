"""Samplers by name, made anew for every ask, so that a killed study goes on as if it had not been.

Optuna stores trials, not the state of a sampler's random numbers: a study that is opened again with
the same seed draws its first trials once more. So a sampler here is a function of the space, the
start and a seed; the seed counts the trials, and everything else is read from the study.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from merge_core.plugins import Registry

if TYPE_CHECKING:  # heavy: imported where they are needed
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

Space: TypeAlias = "Mapping[str, BaseDistribution]"
Start: TypeAlias = Mapping[str, Any] | None
STARTUP_TRIALS = 10  # random ones before tpe models anything

SAMPLERS = Registry(
    "sampler",
    "mergetune.samplers",
    {
        "auto": "search.samplers.registry:make_auto",
        "cma-es": "search.samplers.cma:CmaSampler",
        "random": "search.samplers.registry:make_random",
        "tpe": "search.samplers.registry:make_tpe",
    },
)


class Maker(Protocol):
    """What a plugin registers: makes the sampler of one ask; keeps nothing between calls."""

    def __call__(self, space: Space, start: Start, seed: int) -> BaseSampler:
        """Return a sampler whose next draw depends on these arguments and the study's trials only.

        Args:
            space: Knob name -> distribution; the same at every ask of a study.
            start: Knob name -> value of a recipe known to be good, or None; it may be ignored.
            seed: In [0, 2**32), another at every ask.

        Raises:
            ParameterError: The sampler cannot draw from this space.
        """
        ...


def make_random(space: Space, start: Start, seed: int) -> BaseSampler:
    """Return a sampler that draws each knob uniformly, log knobs uniformly in their logarithm."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def make_tpe(space: Space, start: Start, seed: int) -> BaseSampler:
    """Return Optuna's multivariate tree-structured Parzen estimator; it draws choices too.

    It models only knobs that all complete trials have: one trial without parameters in the study
    makes it draw knob by knob. Source: Watanabe, arXiv:2304.11127.
    """
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, multivariate=True, n_startup_trials=STARTUP_TRIALS)


def make_auto(space: Space, start: Start, seed: int) -> BaseSampler:
    """Return CMA-ES where all knobs are numbers, else TPE.

    Raises:
        ParameterError: As ``cma.CmaSampler``, where all knobs are numbers.
    """
    from optuna.distributions import CategoricalDistribution

    choices = any(isinstance(d, CategoricalDistribution) and not d.single() for d in space.values())
    made: BaseSampler = SAMPLERS.get("tpe" if choices else "cma-es")(space, start, seed)
    return made

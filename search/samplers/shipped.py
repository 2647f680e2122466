"""The samplers of mergetune, declared without what they import."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from merge_core.errors import ParameterError
from search.samplers.registry import SamplerPlugin, Space, Start

if TYPE_CHECKING:  # heavy: imported where they are needed
    from optuna.samplers import BaseSampler

NEAR = 0.15  # of the range: how far draws are from where steps led, all numbers taken together
STARTUP_TRIALS = 10  # random ones before tpe and gp model anything


def make_cma(space: Space, start: Start, seed: int) -> BaseSampler:
    """Return ``cma.CmaSampler``, for numbers.

    Raises:
        ParameterError: A knob has choices, or none is free.
    """
    from search.samplers.cma import CmaSampler

    return CmaSampler(space, start, seed)


def make_catcma(space: Space, start: Start, seed: int) -> BaseSampler:
    """Return ``catcma.CatCmaSampler``, for numbers and choices.

    Raises:
        ParameterError: No knob is free.
    """
    from search.samplers.catcma import CatCmaSampler

    return CatCmaSampler(space, start, seed)


def make_moves(space: Space, start: Start, seed: int) -> BaseSampler:
    """Return ``moves.MovesSampler``, for layer paths."""
    from search.samplers.moves import MovesSampler

    return MovesSampler(space, start, seed)


def make_near(space: Space, start: Start, seed: int) -> BaseSampler:
    """Return what ``make_auto`` does, close around a start that steps by gradient have led to.

    Raises:
        ParameterError: No knob is free.
    """
    free = sum(not d.single() for d in space.values())
    return _around(space, start, seed, NEAR / max(1, free) ** 0.5)


def make_auto(space: Space, start: Start, seed: int) -> BaseSampler:
    """Return moves where there are hops of a path, CMA-ES where all knobs are numbers, else CatCMA.

    Raises:
        ParameterError: No knob is free.
    """
    if has_hops(space):
        return make_moves(space, start, seed)
    return _around(space, start, seed, None)


def has_hops(space: Iterable[str]) -> bool:
    """Return whether some knobs, by their names, are the hops of a path."""
    return any("/hop " in name for name in space)


def _around(space: Space, start: Start, seed: int, sigma: float | None) -> BaseSampler:
    from optuna.distributions import CategoricalDistribution

    from search.samplers.catcma import CatCmaSampler
    from search.samplers.cma import CmaSampler

    choices = any(isinstance(d, CategoricalDistribution) and not d.single() for d in space.values())
    return (CatCmaSampler if choices else CmaSampler)(space, start, seed, sigma)


def make_none(space: Space, start: Start, seed: int) -> BaseSampler:
    """Refuse: ``gradient`` goes from step to step (``gradient.GradientSearch``), and draws nothing.

    Raises:
        ParameterError: Always.
    """
    raise ParameterError("'gradient' is a search from step to step; it draws no trials")


def make_random(space: Space, start: Start, seed: int) -> BaseSampler:
    """Return a sampler that draws each knob uniformly, log knobs uniformly in their logarithm."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def make_tpe(space: Space, start: Start, seed: int) -> BaseSampler:
    """Return Optuna's multivariate tree-structured Parzen estimator.

    It models only knobs that all complete trials have: one trial without parameters in the study
    makes it draw knob by knob. Source: Watanabe, arXiv:2304.11127.
    """
    from search.samplers.tpe import KnownSpaceTpe

    return KnownSpaceTpe(space, seed, STARTUP_TRIALS)


def make_gp(space: Space, start: Start, seed: int) -> BaseSampler:
    """Return Optuna's Gaussian process with log expected improvement, on one thread of torch.

    An ask takes seconds from a few hundred trials on. Source: Ament et al., arXiv:2310.20708.
    """
    from search.samplers.gp import GpSampler

    return GpSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)


def make_nsga2(space: Space, start: Start, seed: int) -> BaseSampler:
    """Return ``nsga2.Nsga2Sampler``."""
    from search.samplers.nsga2 import Nsga2Sampler

    return Nsga2Sampler(space, seed)


def make_qmc(space: Space, start: Start, seed: int) -> BaseSampler:
    """Return ``qmc.QmcSampler``.

    Raises:
        ParameterError: No knob is free, or there are more than a Sobol sequence has.
    """
    from search.samplers.qmc import QmcSampler

    return QmcSampler(space, seed)


AUTO = SamplerPlugin(
    "auto", make_auto, "cma-es for numbers, catcma where there are choices, moves for layer paths"
)
CATCMA = SamplerPlugin(
    "catcma", make_catcma, "CMA-ES for numbers and choices together", several=False
)
CMA_ES = SamplerPlugin("cma-es", make_cma, "CMA-ES, numbers alone", choices=False, several=False)
GRADIENT = SamplerPlugin("gradient", make_none, "steps by the loss of right answers", several=False)
GP = SamplerPlugin("gp", make_gp, "Gaussian process, for few knobs and at most some 200 trials")
MOVES = SamplerPlugin(
    "moves",
    make_moves,
    "layer paths: structured moves, screened by a model; several objectives too",
)
NSGA2 = SamplerPlugin("nsga2", make_nsga2, "genetic algorithm for several objectives")
QMC = SamplerPlugin("qmc", make_qmc, "a scrambled Sobol sequence: even cover", whole_study=True)
RANDOM = SamplerPlugin("random", make_random, "uniform draws")
TPE = SamplerPlugin("tpe", make_tpe, "tree-structured Parzen estimator, also several objectives")

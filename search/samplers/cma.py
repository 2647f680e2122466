"""CMA-ES whose state is the study itself: every ask replays the generations from the trials.

Optuna's ``CmaEsSampler`` was rejected: it pickles its state into trial attributes (3 MB per
generation at 256 knobs), starts at a random point, and draws other trials after a restart. The
arithmetic is that of the ``cmaes`` package: Hansen, The CMA Evolution Strategy: A Tutorial,
arXiv:1604.00772; where knobs have a grid, with margin: Hamano et al., arXiv:2205.13482; above 200
knobs the covariance is diagonal: Ros & Hansen, PPSN 2008.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import cmaes
import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from merge_core.errors import ParameterError
from search.samplers.cube import Cube, Number, Vector
from search.samplers.registry import Space, Start
from search.samplers.replay import LOCK, Replay, Told
from search.samplers.whole_points import WholePoints, one_objective

SIGMA_AT_START = 0.1  # of a knob's range, around a recipe that is known to be good
SIGMA_IN_MIDDLE = 1 / 6  # Optuna's choice; 0.1 is slower where nothing is known
SEPARABLE_ABOVE = 200  # knobs: beyond, a full covariance costs more than trials can teach it


class CmaSampler(WholePoints):
    """Draws from the normal distribution that the study's complete trials have shaped so far.

    Trials that are complete, have exactly this space's parameters and no user attribute "baseline"
    are cut, in the order of their numbers, into generations of ``4 + floor(3 ln d)`` for d knobs;
    the rest of an unfinished generation waits. A search that has converged, or sees no difference,
    starts again with twice the generation at another place (``replay.Replay``). So the draw depends
    on nothing but the arguments and the trials.

    Args:
        space: Knob name -> distribution, log and step included. One must have more than one value.
        start: Knob name -> value of the first mean, inside the ranges; more names are ignored, a
            missing one starts in the middle, as all do with None.
        seed: Of this one draw, in [0, 2**32).
        sigma: First standard deviation, > 0, as a share of every knob's range (its logarithm's
            range for log knobs); None: narrow around a start, wider without one.

    Raises:
        ParameterError: A knob is categorical, or no knob is free.
    """

    def __init__(self, space: Space, start: Start, seed: int, sigma: float | None = None) -> None:
        free = _numbers({name: d for name, d in space.items() if not d.single()})
        super().__init__("cma-es", free)
        self._cube = Cube(free)
        mean = self._cube.start(start)
        sigma = sigma or (SIGMA_AT_START if start else SIGMA_IN_MIDDLE)
        self._replay = _replay(tuple(free.items()), tuple(mean.tolist()), sigma)
        self._told = _told(tuple(free.items()), frozenset(space))
        self._seed = seed

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, float | int]:
        """Draw one value of every free knob; of the arguments only the study is looked at.

        Raises:
            ParameterError: The study has several objectives.
        """
        one_objective(study, "cma-es")
        with LOCK:
            return self._cube.values(self._caught_up(study).ask(self._seed))

    def generation_mean(self, study: Study) -> dict[str, Any] | None:
        """Return the mean of the distribution after the last whole generation; see ``ask.mean_of``.

        It is that generation's weighted mean (Hansen, equation 6), on the knobs' grids.
        """
        with LOCK:
            self._caught_up(study)
            mean = self._replay.mean
            return None if mean is None else self._cube.values(mean)

    def _caught_up(self, study: Study) -> _Run:
        return self._replay.caught_up(*self._told.of(study))


def _numbers(space: Mapping[str, BaseDistribution]) -> dict[str, Number]:
    found = {n: d for n, d in space.items() if isinstance(d, FloatDistribution | IntDistribution)}
    if other := [name for name in space if name not in found]:
        raise ParameterError(
            f"cma-es draws numbers only, got choices for {', '.join(other)}; "
            "use the sampler catcma, tpe or auto"
        )
    if not space:
        raise ParameterError("cma-es needs a knob with more than one value, got none")
    return found


@lru_cache(maxsize=4)
def _told(space: tuple[tuple[str, Number], ...], names: frozenset[str]) -> Told:
    cube = Cube(dict(space))

    def points(trials: list[FrozenTrial]) -> Vector:
        return cube.points([[trial.params[name] for name in cube.names] for trial in trials])

    return Told(names, True, points)


@lru_cache(maxsize=4)
def _replay(
    space: tuple[tuple[str, Number], ...], mean: tuple[float, ...], sigma: float
) -> Replay[_Run]:
    cube, centre = Cube(dict(space)), np.array(mean)
    return Replay(partial(_Run.begun, cube, centre, sigma))


class _Run:
    """One of the three strategies of ``cmaes``, from a start to a restart.

    A trial keeps the grid value that a drawn number fell on, not the number. CMA-ES with margin is
    told the middle of the cell, by the scale that it draws with (``_A``, which has no public name):
    in some hundred trials that finds what the number itself does, or better.
    """

    def __init__(self, cube: Cube, mean: Vector, sigma: float, doublings: int) -> None:
        self.size = int(4 + np.floor(3 * np.log(len(cube)))) * 2**doublings
        bounds = np.array([[0.0, 1.0]] * len(cube))
        settings: dict[str, Any] = {"sigma": sigma, "population_size": self.size}
        self._with_margin = bool(cube.grid.any()) and len(cube) <= SEPARABLE_ABOVE
        if len(cube) > SEPARABLE_ABOVE:
            self._cmaes: Any = cmaes.SepCMA(mean.copy(), bounds=bounds, **settings)
        elif self._with_margin:
            edge = cube.cells / 2  # the first value of a grid is the middle of its cell
            bounds += np.stack([edge, -edge], axis=1)
            mean = np.clip(mean, *bounds.T)
            self._cmaes = cmaes.CMAwM(mean, bounds=bounds, steps=cube.cells, **settings)
        else:
            self._cmaes = cmaes.CMA(mean, bounds=bounds, **settings)

    @classmethod
    def begun(cls, cube: Cube, mean: Vector, sigma: float, number: int, seed: int) -> _Run:
        """Return the run of that number: the first at the mean, others anywhere."""
        if number == 0:
            return cls(cube, mean, sigma, 0)
        anywhere = np.random.RandomState(seed).random_sample(len(cube))
        return cls(cube, anywhere, SIGMA_IN_MIDDLE, number)

    def ask(self, seed: int) -> Vector:
        """Draw a (d,) point; the run does not change."""
        self._cmaes.reseed_rng(seed)
        drawn = self._cmaes.ask()
        point: Vector = drawn[0] if self._with_margin else drawn
        return point

    def tell(self, points: Vector, losses: Vector) -> None:
        """Learn from a generation; see ``replay.Strategy``."""
        if self._with_margin:
            mean = self._cmaes.mean
            points = mean + (points - mean) / self._cmaes._A
        self._cmaes.tell(list(zip(points, losses.tolist(), strict=True)))

    def mean(self) -> Vector:
        """Return the (d,) mean, inside the cube."""
        mean: Vector = np.clip(self._cmaes.mean, 0.0, 1.0)
        return mean

    def broken(self) -> bool:
        """Return whether numbers are at the end of their precision."""
        return bool(self._cmaes.should_stop())

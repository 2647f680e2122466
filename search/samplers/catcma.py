"""CatCMA with margin: numbers, grids and choices drawn from one distribution that trials shape.

Numbers have a normal distribution, each choice its own probabilities; both are learnt from the same
generations. The arithmetic is that of the ``cmaes`` package: Hamano et al., arXiv:2504.07884; the
choices follow a stochastic natural gradient: Akimoto et al., ICML 2019.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np
from cmaes import CatCMAwM
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from merge_core.errors import ParameterError
from search.samplers.cma import SIGMA_AT_START, SIGMA_IN_MIDDLE
from search.samplers.coordinates import Coordinates, Free
from search.samplers.cube import Vector
from search.samplers.registry import Space, Start
from search.samplers.replay import LOCK, Replay, Told
from search.samplers.whole_points import WholePoints, one_objective

TRIES = 6400  # numbers that may be drawn to find a point inside the box, before it is clipped


class CatCmaSampler(WholePoints):
    """Draws from the distribution of numbers and choices that the complete trials have shaped.

    Trials that are complete, have parameters of this space alone and no user attribute "baseline"
    are cut into generations of ``4 + floor(3 ln d)`` for d knobs; restarts as those of cma-es. A
    trial need not have every knob, since a method has its own ones: a number that was not in force
    counts as one more draw from the distribution, seeded by the number of the generation, a choice
    as the probabilities themselves. Either moves nothing on average, and nothing narrows; telling
    the mean instead would make a knob's deviation smaller each time that it is not looked at.

    Args:
        space: Knob name -> distribution. One must have more than one value.
        start: Knob name -> value of the first mean; of the numbers alone, and names may be missing
            (the middle). None starts in the middle.
        seed: Of this one draw, in [0, 2**32).
        sigma: First standard deviation of numbers, > 0, as a share of every knob's range; None:
            narrow around a start, wider without one.

    Raises:
        ParameterError: No knob is free.
    """

    def __init__(self, space: Space, start: Start, seed: int, sigma: float | None = None) -> None:
        super().__init__("catcma", {name: d for name, d in space.items() if not d.single()})
        if not self._free:
            raise ParameterError("catcma needs a knob with more than one value, got none")
        free: Free = tuple(self._free.items())
        self._coordinates = Coordinates(free)
        mean = self._coordinates.cube.start(start)
        sigma = sigma or (SIGMA_AT_START if start else SIGMA_IN_MIDDLE)
        self._replay = _replay(free, tuple(mean.tolist()), sigma)
        self._told = _told(free, frozenset(space))
        self._seed = seed

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw one value of every free knob; of the arguments only the study is looked at.

        Raises:
            ParameterError: The study has several objectives.
        """
        one_objective(study, "catcma")
        with LOCK:
            return self._coordinates.values(self._caught_up(study).ask(self._seed))

    def generation_mean(self, study: Study) -> dict[str, Any] | None:
        """Return the distribution's mean after the last whole generation; see ``ask.mean_of``.

        Of choices it is the most probable one.
        """
        with LOCK:
            self._caught_up(study)
            mean = self._replay.mean
            return None if mean is None else self._coordinates.values(mean)

    def _caught_up(self, study: Study) -> _Run:
        return self._replay.caught_up(*self._told.of(study))


@lru_cache(maxsize=4)
def _told(free: Free, names: frozenset[str]) -> Told:
    coordinates = Coordinates(free)
    return Told(names, False, lambda trials: coordinates.points([t.params for t in trials]))


@lru_cache(maxsize=4)
def _replay(free: Free, mean: tuple[float, ...], sigma: float) -> Replay[_Run]:
    return Replay(partial(_Run.begun, Coordinates(free), np.array(mean), sigma))


class _Run:
    """CatCMA with margin, from a start to a restart.

    ``cmaes`` has no public names for the state of the distribution, nor for the number behind a
    grid value that it wants to be told; the middle of the cell is.
    """

    def __init__(self, space: Coordinates, mean: Vector, sigma: float, doublings: int) -> None:
        cube, grid = space.cube, space.grid
        self._numbers, self._continuous = len(cube), int((~grid).sum())
        self._kinds = np.array([len(c) for c in space.choices.values()], dtype=int)
        count = self._numbers + len(self._kinds)
        self.size = int(4 + np.floor(3 * np.log(count))) * 2**doublings
        self._cmaes = CatCMAwM(
            x_space=[[0.0, 1.0]] * self._continuous or None,
            z_space=[_middles(cell) for cell in cube.cells[grid]] or None,
            c_space=self._kinds.tolist() or None,
            mean=mean.copy() if len(cube) else None,
            cov=np.eye(len(cube)),
            sigma=sigma,
            population_size=self.size,
        )
        self._generations = 0

    @classmethod
    def begun(cls, space: Coordinates, mean: Vector, sigma: float, number: int, seed: int) -> _Run:
        """Return the run of that number: the first at the mean, others anywhere."""
        if number == 0:
            return cls(space, mean, sigma, 0)
        anywhere = np.random.RandomState(seed).random_sample(len(space.cube))
        return cls(space, anywhere, SIGMA_IN_MIDDLE, number)

    def ask(self, seed: int) -> Vector:
        """Draw a point; what is drawn beyond the box is drawn again, at last clipped."""
        self._cmaes.reseed_rng(seed)
        for _ in range(max(1, TRIES // max(1, self._numbers))):
            drawn = self._cmaes.ask()
            if drawn.x is None or (drawn.x == drawn._v_raw[: self._continuous]).all():
                break
        parts = [part for part in (drawn.x, drawn.z) if part is not None]
        places = [] if drawn.c is None else [np.argmax(drawn.c, axis=1)]
        return np.concatenate(parts + places)

    def tell(self, points: Vector, losses: Vector) -> None:
        """Learn from a generation; see ``replay.Strategy``. Only the order of losses counts."""
        numbers = self._filled(points[:, : self._numbers])
        probabilities = [self._probabilities(row) for row in points[:, self._numbers :]]
        order = np.argsort(losses, kind="stable")
        ranks = np.empty(len(order))
        ranks[order] = np.arange(len(order))
        self._cmaes.tell(
            [
                (CatCMAwM.Solution(c=chosen, _v_raw=v), rank)
                for v, chosen, rank in zip(numbers, probabilities, ranks.tolist(), strict=True)
            ]
        )
        self._generations += 1

    def mean(self) -> Vector:
        """Return the mean of the numbers, inside the cube, and the most probable choices."""
        numbers = np.clip(self._cmaes._mean, 0.0, 1.0) if self._numbers else np.empty(0)
        places = np.argmax(self._cmaes._q, axis=1) if len(self._kinds) else np.empty(0)
        return np.concatenate([numbers, places])

    def broken(self) -> bool:
        """Return whether numbers are at the end of their precision."""
        return self._numbers > 0 and bool(self._cmaes.should_stop())

    def _filled(self, numbers: Vector) -> Vector:
        """Return the numbers with draws of the distribution for those that are NaN."""
        if not np.isnan(numbers).any():
            return numbers
        state = self._cmaes
        deviation = state._sigma * state._A * np.sqrt(np.diag(state._C))
        random = np.random.RandomState(self._generations)
        drawn = state._mean + deviation * random.standard_normal(numbers.shape)
        return np.where(np.isnan(numbers), drawn, numbers)

    def _probabilities(self, places: Vector) -> Vector | None:  # (choices, most kinds)
        if not len(places):
            return None
        found: Vector = self._cmaes._q.copy()
        for i, place in enumerate(places):
            if not np.isnan(place):
                found[i] = np.arange(found.shape[1]) == place
        return found


def _middles(cell: float) -> list[float]:
    count = round(1 / cell)
    return [(i + 0.5) / count for i in range(count)]

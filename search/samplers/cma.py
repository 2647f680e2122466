"""CMA-ES whose state is the study itself: every ask replays the generations from the trials.

Optuna's ``CmaEsSampler`` was rejected: it pickles its state into trial attributes (3 MB per
generation at 256 knobs), starts at a random point, and draws other trials after a restart. Replay
costs 0.1 s for 1,000 trials of 64 knobs (``dev/LOG.md``). The arithmetic is
that of the ``cmaes`` package: Hansen, The CMA Evolution Strategy: A Tutorial, arXiv:1604.00772.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import cmaes
import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from merge_core.errors import ParameterError
from search.samplers.registry import Space, Start

SIGMA_AT_START = 0.1  # of a knob's range, around a recipe that is known to be good
SIGMA_IN_MIDDLE = 1 / 6  # Optuna's choice; 0.1 is slower where nothing is known
BASELINE = "baseline"  # user attribute of trials that nobody searched

Vector = npt.NDArray[np.float64]


class CmaSampler(BaseSampler):
    """Draws from the normal distribution that the study's complete trials have shaped so far.

    Trials that are complete, have exactly this space's parameters and no user attribute "baseline"
    are cut, in the order of their numbers, into generations of ``4 + floor(3 ln d)`` for d knobs;
    the rest of an unfinished generation waits. After a generation of equal points (a grid leaves no
    smaller step) the search starts again. So the draw depends on nothing but the arguments and the
    trials.

    Args:
        space: Knob name -> distribution, log and step included. One must have more than one value.
        start: Knob name -> value of the first mean, inside the ranges; more names are ignored. None
            starts in the middle.
        seed: Of this one draw, in [0, 2**32).
        sigma: First standard deviation, > 0, as a share of every knob's range (its logarithm's
            range for log knobs); None: narrow around a start, wider without one.

    Raises:
        ParameterError: A knob is categorical, or no knob is free.
    """

    def __init__(self, space: Space, start: Start, seed: int, sigma: float | None = None) -> None:
        self._names = space.keys()
        self._cube = _Cube({name: d for name, d in space.items() if not d.single()})
        middle = np.full(len(self._cube.space), 0.5)
        self._fresh = partial(
            cmaes.CMA,
            mean=middle if start is None else self._cube.points([start])[0],
            sigma=sigma or (SIGMA_AT_START if start else SIGMA_IN_MIDDLE),
            bounds=np.array([[0.0, 1.0]] * len(middle)),
        )
        self._seed = seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the knobs that have more than one value; the arguments are not looked at."""
        return dict(self._cube.space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, float | int]:
        """Draw one value of every free knob; of the arguments only the study is looked at."""
        optimizer = self._replayed(study)
        optimizer.reseed_rng(self._seed)
        return self._cube.values(optimizer.ask())

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Refuse: a knob outside the space would be drawn without a memory.

        Raises:
            ParameterError: Always.
        """
        raise ParameterError(
            f"{param_name}: cma-es was made for the knobs {', '.join(self._cube.space)} "
            f"and cannot draw {param_distribution}"
        )

    def _replayed(self, study: Study) -> cmaes.CMA:
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        told = [t for t in complete if t.params.keys() == self._names]
        told = sorted((t for t in told if BASELINE not in t.user_attrs), key=lambda t: t.number)
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        points = self._cube.points([t.params for t in told])
        optimizer = self._fresh()
        size = optimizer.population_size
        for first in range(0, len(told) - size + 1, size):
            group = slice(first, first + size)
            if (points[group] == points[first]).all():  # shrunk onto one grid value: start again
                optimizer = self._fresh()
                continue
            losses = [sign * t.values[0] for t in told[group]]
            optimizer.tell(list(zip(points[group], losses, strict=True)))
        return optimizer


class _Cube:
    """Numeric knobs as the unit cube: log knobs by their logarithm, grid values in equal cells."""

    def __init__(self, space: Space) -> None:
        self.space = {
            n: d for n, d in space.items() if isinstance(d, FloatDistribution | IntDistribution)
        }
        if other := [name for name in space if name not in self.space]:
            raise ParameterError(
                f"cma-es draws numbers only, got choices for {', '.join(other)}; "
                "use the sampler tpe or auto"
            )
        if not space:
            raise ParameterError("cma-es needs a knob with more than one value, got none")
        rows = [(d.low, d.high, d.step or 0.0, d.log) for d in self.space.values()]
        self._low, self._high, self._step, log = np.array(rows, dtype=np.float64).T
        self._log = log == 1
        self._from = self._flat(self._low - self._step / 2)  # half a cell beyond the last value
        self._to = self._flat(self._high + self._step / 2)

    def points(self, rows: Sequence[Mapping[str, Any]]) -> Vector:  # (n, d) in [0, 1]
        values = np.array([[row[name] for name in self.space] for row in rows], dtype=np.float64)
        flat = self._flat(values.reshape(len(rows), len(self.space)))
        return np.clip((flat - self._from) / (self._to - self._from), 0.0, 1.0)

    def values(self, point: Vector) -> dict[str, float | int]:
        x = self._from + point * (self._to - self._from)
        x[self._log] = np.exp(x[self._log])
        grid = self._step > 0
        low, step = self._low[grid], self._step[grid]
        x[grid] = low + np.round((x[grid] - low) / step) * step
        x = np.clip(x, self._low, self._high)
        return {
            name: int(value) if isinstance(d, IntDistribution) else float(value)
            for (name, d), value in zip(self.space.items(), x, strict=True)
        }

    def _flat(self, values: Vector) -> Vector:  # (..., d)
        flat = values.copy()
        flat[..., self._log] = np.log(flat[..., self._log])
        return flat

"""One scrambled Sobol sequence for a study: the n-th searched trial is its n-th point.

Optuna's ``QMCSampler`` was rejected: it counts in an attribute of the study, which a study that is
rebuilt from its trials has lost. Source: Owen, Scrambling Sobol' and Niederreiter-Xing points,
1998; the arithmetic is scipy's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial
from scipy.stats.qmc import Sobol

from merge_core.errors import ParameterError
from search.samplers.coordinates import Coordinates
from search.samplers.registry import Space
from search.samplers.replay import searched_itself
from search.samplers.whole_points import WholePoints


class QmcSampler(WholePoints):
    """Draws the point whose place is the number of searched trials before, whatever became of them.

    Args:
        space: Knob name -> distribution. One must have more than one value.
        seed: Of the scrambling, in [0, 2**32): the same at every ask of a study.

    Raises:
        ParameterError: No knob is free, or more than scipy has directions for (21,201).
    """

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__("qmc", {name: d for name, d in space.items() if not d.single()})
        if not 0 < len(self._free) <= Sobol.MAXDIM:
            raise ParameterError(
                f"qmc needs 1 to {Sobol.MAXDIM} knobs with more than one value, "
                f"got {len(self._free)}"
            )
        self._coordinates = Coordinates(tuple(self._free.items()))
        self._seed = seed

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next point; the trial's number and the study are looked at."""
        others = study.get_trials(deepcopy=False)
        before = sum(t.number < trial.number and searched_itself(t) for t in others)
        sequence = Sobol(len(self._free), scramble=True, seed=self._seed)
        if before:
            sequence.fast_forward(before)
        point = sequence.random(1)[0]
        numbers = len(self._coordinates.cube)
        kinds = np.array([len(c) for c in self._coordinates.choices.values()], dtype=int)
        point[numbers:] = np.floor(point[numbers:] * kinds)
        return self._coordinates.values(point)

"""Optuna's TPE, told the space that it would find out from all trials at every ask."""

from __future__ import annotations

from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.samplers.registry import Space


class KnownSpaceTpe(TPESampler):
    """``optuna.samplers.TPESampler``, multivariate; its draws are the same, in half the time.

    Args:
        space: Knob name -> distribution.
        seed: Of this one draw, in [0, 2**32).
        startup: How many trials are random.
    """

    def __init__(self, space: Space, seed: int, startup: int) -> None:
        super().__init__(seed=seed, multivariate=True, n_startup_trials=startup)
        self._space = space

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the knobs that all complete trials have; there must be one trial."""
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if complete and all(t.params.keys() == self._space.keys() for t in complete):
            return {n: self._space[n] for n in sorted(self._space) if not self._space[n].single()}
        return super().infer_relative_search_space(study, trial)

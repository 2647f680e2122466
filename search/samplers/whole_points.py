"""Samplers that draw all free knobs of one space together, and nothing outside of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from merge_core.errors import ParameterError


class WholePoints(BaseSampler):
    """What such samplers have in common; a subclass has ``sample_relative``.

    Args:
        name: Of the sampler.
        free: Knob name -> distribution with more than one value.
    """

    def __init__(self, name: str, free: Mapping[str, BaseDistribution]) -> None:
        self._sampler, self._free = name, free

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the knobs that have more than one value; the arguments are not looked at."""
        return dict(self._free)

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
            f"{param_name}: {self._sampler} was made for the knobs {', '.join(self._free)} "
            f"and cannot draw {param_distribution}"
        )


def one_objective(study: Study, sampler: str) -> None:
    """Refuse a study with several objectives.

    Raises:
        ParameterError: It has.
    """
    if len(study.directions) > 1:
        raise ParameterError(
            f"{sampler} has one objective, the study {len(study.directions)}; use tpe or nsga2"
        )

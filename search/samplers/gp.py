"""Optuna's Gaussian process on one thread, so that its numbers do not depend on how many there are.

Of its own it needs scipy and torch, which mergetune has.
"""

from __future__ import annotations

from typing import Any

import torch
from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class GpSampler(GPSampler):
    """``optuna.samplers.GPSampler`` with torch kept to one thread while it fits and searches."""

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw as Optuna does."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return super().sample_relative(study, trial, search_space)
        finally:
            torch.set_num_threads(threads)

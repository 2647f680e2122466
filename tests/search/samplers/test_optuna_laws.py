"""The shipped samplers under Optuna's own tests of samplers.

Optuna's tests hand a space to every call, ours have theirs from the start: ``Anew`` makes one for
each trial, as a study does. What the spaces of two trials do not share is drawn by Optuna's random
sampler there. The classes say what a sampler can do: ``RelativeSamplerTestCase`` draws choices
from the first trial on (not cma-es; tpe, gp, nsga2 and moves begin at random), ``SingleOnly`` is
for one objective.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.trial import FrozenTrial

from search.samplers.ask import seed_for
from search.samplers.registry import SamplerPlugin, find
from search.samplers.whole_points import one_objective

Made = Callable[[], BaseSampler]


class Anew(BaseSampler):
    """A registered sampler, made anew for every trial from the space that the trials share."""

    def __init__(self, plugin: SamplerPlugin) -> None:
        self._plugin, self._random = plugin, RandomSampler(seed=0)
        self._shared = IntersectionSearchSpace()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        shared = {n: d for n, d in self._shared.calculate(study).items() if not d.single()}
        if self._plugin.choices:
            return shared
        return {n: d for n, d in shared.items() if not isinstance(d, CategoricalDistribution)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._check(study)
        if not search_space:
            return {}
        made = self._plugin(search_space, None, seed_for(0, trial.number))
        inner = made.infer_relative_search_space(study, trial)
        return made.sample_relative(study, trial, inner)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Any:
        self._check(study)
        return self._random.sample_independent(study, trial, name, distribution)

    def _check(self, study: Study) -> None:
        if not self._plugin.several:
            one_objective(study, self._plugin.name)


class TestCmaEs(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Made:
        return lambda: Anew(find("cma-es"))


class TestCatcma(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Made:
        return lambda: Anew(find("catcma"))


class TestQmc(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Made:
        return lambda: Anew(find("qmc"))


class TestMoves(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Made:
        return lambda: Anew(find("moves"))


class TestNsga2(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Made:
        return lambda: Anew(find("nsga2"))


class TestRandom(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Made:
        return lambda: find("random")({}, None, 0)


class TestTpe(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Made:
        return lambda: find("tpe")({}, None, 0)


@pytest.mark.slow
class TestGp(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Made:
        return lambda: find("gp")({}, None, 0)

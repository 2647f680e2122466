"""NSGA-II whose generations are read off the order of the trials.

Optuna's sampler writes a trial's generation and each generation's parents into attributes, which a
study that is rebuilt from its trials has lost. Selection, crossover and mutation here are Optuna's;
only who belongs to which generation is said anew. Source: Deb et al., 2002,
doi:10.1109/4235.996017.
"""

from __future__ import annotations

from functools import reduce

from optuna.distributions import BaseDistribution
from optuna.samplers import NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from search.samplers.registry import Space
from search.samplers.replay import searched

POPULATION = 20  # Optuna's 50 leaves a study of 100 trials one generation of children


class Nsga2Sampler(NSGAIISampler):
    """Draws a child of the best trials of all generations that are whole.

    Complete trials of this space without a user attribute "baseline" are cut into generations of
    ``POPULATION``, in the order of their numbers; the first is random. So the draw depends on
    nothing but the arguments and the trials.

    Args:
        space: Knob name -> distribution.
        seed: Of this one draw, in [0, 2**32).
    """

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__(population_size=POPULATION, seed=seed)
        self._free = {name: d for name, d in space.items() if not d.single()}
        self._known = frozenset(space)
        self._told: list[FrozenTrial] = []
        self._parents: dict[int, list[FrozenTrial]] = {}

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Look at the study's trials; return the knobs that all parents have.

        The others are drawn at random. It is called first for every trial, which is why what the
        other methods know of the study is read here.
        """
        self._told = searched(study, self._known, all_of_them=False)
        self._parents = {0: []}
        parents = self.get_parent_population(study, self.get_trial_generation(study, trial))
        if not parents:
            return {}
        shared = reduce(frozenset.intersection, (frozenset(t.params) for t in parents))
        return {name: d for name, d in self._free.items() if name in shared}

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        """Return how many generations are whole."""
        return len(self._told) // POPULATION

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """Return the trials of a generation, by number."""
        first = generation * POPULATION
        return self._told[first : first + POPULATION]

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """Return whose children a generation has: none for the first."""
        for later in range(len(self._parents), generation + 1):
            chosen = self.select_parent(study, later)
            self._parents[later] = sorted(chosen, key=lambda t: t.number)
        return self._parents[generation]

"""The trials that another one knows: found by recipe, by weights, and the best of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from merge_core.recipe.schema import Recipe
from search.trial import racing
from search.trial.router_file import without_file
from search.trial.trial import Trial


@dataclass
class _Found:
    """Of trials whose scores may be taken over, the first of each recipe and of each weights."""

    recipes: dict[Recipe, Trial] = field(default_factory=dict)
    digests: dict[str, Trial] = field(default_factory=dict)

    def add(self, trial: Trial) -> None:
        for recipe in (trial.recipe, without_file(trial.recipe)):
            self.recipes.setdefault(recipe, trial)
        self.digests.setdefault(trial.weights_digest, trial)


class Known:
    """The first trials of a study; only grows.

    Args:
        trials: By number, from 0.

    Attributes:
        trials: Those that were added.
        rivals: Whom the next candidate is raced against, see ``racing.rivals``.
        searched: How many of them a sampler asked for.
        means: How many are means of generations.
    """

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self.trials: list[Trial] = []
        self.searched = self.means = 0
        self._whole, self._raced = _Found(), _Found()
        self.rivals: list[Trial] = []
        for trial in trials:
            self.add(trial)

    def add(self, trial: Trial) -> None:
        """Add the next one."""
        self.trials.append(trial)
        self.searched += trial.was_searched()
        self.means += trial.is_mean()
        if trial.state == "complete":
            self._whole.add(trial)
            self.rivals = racing.rivals([*self.rivals, trial])
        if trial.state in ("complete", "stopped"):
            self._raced.add(trial)

    def with_recipe(self, recipe: Recipe, *, raced: bool) -> Trial | None:
        """Return the first trial of a recipe that has scores.

        Args:
            recipe: One that asks for trained routers is that of trials that have trained them.
            raced: Whether the scores of a trial that was stopped will do.
        """
        return self._of(raced).recipes.get(recipe)

    def with_weights(self, digest: str, *, raced: bool) -> Trial | None:
        """Return the first trial of some weights that has scores; ``raced`` as above."""
        return self._of(raced).digests.get(digest)

    def digests(self, *, raced: bool) -> frozenset[str]:
        """Return the digests of all weights that have scores; ``raced`` as above."""
        return frozenset(self._of(raced).digests)

    def _of(self, raced: bool) -> _Found:
        return self._raced if raced else self._whole

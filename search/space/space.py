"""Knobs -> named numbers that a sampler draws, and drawn numbers -> a plain mergekit recipe.

Plain data: Optuna's distributions are made from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from merge_core.contract import Param
from merge_core.errors import MergeError, join
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe
from merge_core.validation import Place
from search.space.over_layers import Drawn, OverLayers
from search.spec.ranges import Knob
from search.spec.recipe_template import Template

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Dimension:
    """One number that the sampler draws: its name in the database and the knob it belongs to."""

    name: str
    knob: Knob
    param: Param | None  # None for the choice of a method


class Space:
    """All dimensions of a study.

    Args:
        template: The recipe with knobs.
        tensors: Names of all tensors of the models.

    Raises:
        MergeError: A knob cannot be spread over the layers of such a model.
    """

    def __init__(self, template: Template, tensors: Iterable[str]) -> None:
        self.template = template
        self._over_layers = OverLayers(tensors)
        self._of: dict[Place, list[Dimension]] = {}
        for knob in template.knobs:
            self._of[knob.place] = self._dimensions(knob)
        self.dimensions = tuple(self._all())

    def recipe(self, drawn: Mapping[str, Drawn]) -> Recipe:
        """Return the recipe that the drawn values stand for.

        Args:
            drawn: One value for the name of every dimension.

        Raises:
            MergeError: The values do not make a valid recipe.
        """
        values: dict[Place, Any] = {}
        for place, members in self._of.items():
            numbers = [_on_grid(member.knob, drawn[member.name]) for member in members]
            if members[0].knob.spread:
                values[place] = self._over_layers.spread(members[0].knob, numbers)
            else:
                values[place] = numbers[0]
        data = self.template.filled(values)
        for place, members in self._of.items():
            if members[0].knob.spread:
                self._over_layers.write_filters(data, place, values[place], self.template)
        problems: list[tuple[str, str]] = []
        recipe = recipe_reader.parse(data, "recipe", problems)
        if recipe is None:
            raise MergeError("; ".join(f"{path}: {rule}" for path, rule in problems))
        return recipe

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return Optuna's distribution for the name of every dimension."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        return {
            d.name: CategoricalDistribution(d.knob.choices)
            if d.knob.choices
            else FloatDistribution(d.knob.low, d.knob.high, step=d.knob.step, log=d.knob.log)
            for d in self.dimensions
        }

    def _all(self) -> list[Dimension]:
        return [member for members in self._of.values() for member in members]

    def _dimensions(self, knob: Knob) -> list[Dimension]:
        path = reduce(join, knob.place, "recipe")
        if knob.spread:
            self._over_layers.check(path)
        name, taken = self._name(knob.place), {d.name for d in self._all()}
        parts = [f"/{part}" for part in self._over_layers.parts(knob)] if knob.spread else [""]
        if not taken.isdisjoint(f"{name}{part}" for part in parts):
            name = f"{name} ({path})"
        param = self._param(knob.place)
        return [Dimension(f"{name}{part}", knob, param) for part in parts]

    def _param(self, place: Place) -> Param | None:
        if place == ("merge_method",):
            return None
        name = place[place.index("parameters") + 1]
        found = (m.param(str(name)) for m in self.template.methods())
        return next(param for param in found if param is not None)

    def _name(self, place: Place) -> str:
        """Return ``weight/model/filter`` for a place; the study's own words, no key paths."""
        if place == ("merge_method",):
            return "merge_method"
        at = place.index("parameters")
        parts = [str(place[at + 1])]
        owner: Any = self.template.data
        for key in place[:at]:
            owner = owner[key]
        if at > 0:
            parts.append(str(owner["model"]).rstrip("/").rsplit("/", 1)[-1])
        setting = owner["parameters"]
        for key in place[at + 1 :]:
            setting = setting[key]
            if isinstance(setting, dict) and setting.get("filter"):
                parts.append(str(setting["filter"]))
        if isinstance(place[-1], int):
            parts.append(f"value {place[-1]}")
        return "/".join(parts)


def _on_grid(knob: Knob, value: Drawn) -> Drawn:
    """Return a drawn value as it goes into the recipe: free of the grid's float noise."""
    return value if knob.step is None else knob.snapped(float(value))

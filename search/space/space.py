"""Knobs -> named numbers that a sampler draws, and drawn numbers -> a plain mergekit recipe.

Plain data: Optuna's distributions are made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any

from merge_core.contract import Param
from merge_core.errors import MergeError, join
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe
from merge_core.validation import Place
from search.space import units
from search.space.over_layers import Case, OverLayers
from search.space.pull_back import pulled_back
from search.space.traced import Traced
from search.space.units import Drawn, Number
from search.spec.ranges import Knob
from search.spec.recipe_template import Cases, Template

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from merge_core.kernels.gradients import Gradients


@dataclass(frozen=True)
class Dimension:
    """One number that the sampler draws: its name in the database and the knob it belongs to."""

    name: str
    knob: Knob
    param: Param | None  # None for the choice of a method
    number: Number | None = None  # its range; None for choices


class Space:
    """All dimensions of a study.

    Args:
        template: The recipe with knobs.
        tensors: Names of all tensors of the models.

    Raises:
        MergeError: Knobs cannot be spread over the layers of such a model; all of them at once.
    """

    def __init__(self, template: Template, tensors: Iterable[str]) -> None:
        self.template = template
        self._over_layers = OverLayers(tensors)
        problems: list[str] = []
        self._of: dict[Place, list[Dimension]] = {}
        self._cases: dict[Place, list[Case]] = {}
        for knob in template.knobs:
            rule = self._add(knob)
            if rule is not None:
                problems.append(f"{reduce(join, knob.place, 'recipe')}: {rule}")
        if problems:
            raise MergeError("; ".join(problems))
        self.dimensions = tuple(self._all())

    def recipe(self, drawn: Mapping[str, Drawn]) -> Recipe:
        """Return the recipe that the drawn values stand for.

        Args:
            drawn: One value for the name of every dimension.

        Raises:
            MergeError: The values do not make a valid recipe.
        """
        values = {place: self._value(place, drawn) for place in self._of}
        problems: list[tuple[str, str]] = []
        recipe = recipe_reader.parse(self.template.filled(values), "recipe", problems)
        if recipe is None:
            raise MergeError("; ".join(f"{path}: {rule}" for path, rule in problems))
        return recipe

    @cached_property
    def smooth(self) -> frozenset[str]:
        """Names of the dimensions that a loss has a derivative by: ranges without a grid."""
        methods = self.template.methods()
        smooth = {param.name for one in methods for param in one.params if param.smooth}
        return frozenset(
            d.name
            for d in self.dimensions
            if d.number is not None and d.knob.step is None and d.param and d.param.name in smooth
        )

    def pull_back(
        self, drawn: Mapping[str, Drawn], slopes: Mapping[str, Gradients]
    ) -> dict[str, float]:
        """Return how a loss changes with drawn values, from how it changes with tensors' values.

        Args:
            drawn: One value for the name of every dimension.
            slopes: Stored tensor -> derivatives by its parameters, models in the recipe's order.

        Returns:
            Name of each smooth dimension -> ``dL / d drawn`` (of a log range by the value itself);
            0 where units move values into the range.

        Raises:
            MergeError: The values do not make a valid recipe, or the derivatives are of another.
        """
        carried = {
            name: Traced(float(value), {name: 1.0}) if name in self.smooth else value
            for name, value in drawn.items()
        }
        found = pulled_back(self.recipe(carried), slopes, self._over_layers.depth)
        return {d.name: found.get(d.name, 0.0) for d in self.dimensions if d.name in self.smooth}

    def point(self, level: Callable[[Knob, Param | None], Drawn]) -> dict[str, Drawn]:
        """Return the point where every knob has one value at all its positions.

        Args:
            level: Knob and parameter -> the value, in the knob's range, or one of its choices.
        """
        found: dict[str, Drawn] = {}
        for members in self._of.values():
            value = level(members[0].knob, members[0].param)
            drawn = [d.number for d in members if d.number is not None]
            levels = units.level(members[0].knob, float(value), drawn) if drawn else [value]
            found |= zip((d.name for d in members), levels, strict=True)
        return found

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return Optuna's distribution for the name of every dimension."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        return {
            d.name: CategoricalDistribution(d.knob.choices)
            if d.number is None
            else FloatDistribution(
                d.number.low, d.number.high, step=d.number.step, log=d.number.log
            )
            for d in self.dimensions
        }

    def _value(self, place: Place, drawn: Mapping[str, Drawn]) -> Any:
        """Return what goes into the recipe at a place."""
        members = self._of[place]
        knob, found = members[0].knob, [_on_grid(d, drawn[d.name]) for d in members]
        if not knob.spread:
            return found[0]
        over = units.values(knob, found, 0 if knob.per == "tensor" else self._over_layers.count)
        return Cases(case.filled(over) for case in self._cases[place])

    def _add(self, knob: Knob) -> str | None:
        """Add a knob's dimensions, or return why it cannot be spread."""
        wanted, earlier = self._filters(knob.place) if knob.spread else (None, [])
        tensors: list[str] = []
        if knob.spread:
            rule = self._over_layers.rule_broken_by(knob)
            if rule is not None:
                return rule
            self._cases[knob.place] = self._over_layers.cases(knob, wanted, earlier)
        if knob.per == "tensor":
            tensors = self._over_layers.hits(wanted, earlier)
            if not tensors:
                return f"no tensor is left for filter {wanted!r}, after those before it"
        self._of[knob.place] = self._dimensions(knob, tensors)
        return None

    def _filters(self, place: Place) -> tuple[str | None, list[str | None]]:
        """Return the filter of the entry that a knob is the value of, and those before it."""
        at = place.index("parameters") + 2
        setting: Any = self.template.data
        for key in place[:at]:
            setting = setting[key]
        if len(place) == at:  # the knob is the whole setting
            return None, []
        cases = setting if isinstance(setting, list) else [setting]
        filters = [case.get("filter") for case in cases]
        i = int(place[at]) if isinstance(setting, list) else 0
        return filters[i], filters[:i]

    def _all(self) -> list[Dimension]:
        return [member for members in self._of.values() for member in members]

    def _dimensions(self, knob: Knob, tensors: list[str]) -> list[Dimension]:
        name, taken = self._name(knob.place), {d.name for d in self._all()}
        layers = self._over_layers.count if knob.spread and knob.per != "tensor" else 0
        drawn = [None] if knob.choices else units.numbers(knob, layers, tensors)
        parts = [f"/{number.name}" if number and number.name else "" for number in drawn]
        if not taken.isdisjoint(f"{name}{part}" for part in parts):
            name = f"{name} ({reduce(join, knob.place, 'recipe')})"
        param = self._param(knob.place)
        return [
            Dimension(f"{name}{part}", knob, param, number)
            for part, number in zip(parts, drawn, strict=True)
        ]

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


def _on_grid(dimension: Dimension, value: Drawn) -> Drawn:
    """Return a drawn value as it goes into the recipe: free of the grid's float noise."""
    if dimension.number is None or dimension.number.step is None:
        return value
    return dimension.knob.snapped(float(value))

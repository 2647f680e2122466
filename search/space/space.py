"""Knobs -> named numbers that a sampler draws, and drawn numbers -> a plain mergekit recipe.

Plain data: Optuna's distributions are made from it, it imports nothing of Optuna. A knob ``per``
layer becomes a list with one value for each layer, which the dialect's interpolation reproduces
exactly. For tensors outside the layers the dialect takes a list's first value: right for
embeddings, and for the final norm and the head the *last* value is written out with a filter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from merge_core.architecture import layers
from merge_core.contract import Param
from merge_core.errors import MergeError
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe
from merge_core.validation import Place
from search.spec.ranges import Knob
from search.spec.recipe_template import Template

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Drawn = bool | float | str


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
        self._template = template
        self._names = tuple(sorted(tensors))
        self._layers = layers.of(self._names)
        outside = [name for name in self._names if self._layers.index(name) is None]
        self._after = [name for name in outside if not _is_embedding(name)]
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
                values[place] = self._per_layer(members[0].knob, numbers)
            else:
                values[place] = numbers[0]
        data = self._template.filled(values)
        for place, members in self._of.items():
            if members[0].knob.spread:
                self._write_filters(data, place, values[place])
        problems: list[tuple[str, str]] = []
        recipe = recipe_reader.parse(data, "recipe", problems)
        if recipe is None:
            raise MergeError("\n".join(f"{path}: {rule}" for path, rule in problems))
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

    def defaults(self) -> dict[str, Drawn]:
        """Return the method's own defaults, each moved into its range; of choices the first."""
        return {d.name: _default(d) for d in self.dimensions}

    def levels(
        self, shares: Iterable[float] = (0.2, 0.4, 0.6, 0.8, 1.0)
    ) -> dict[str, dict[str, Drawn]]:
        """Return points where one number is turned for all models and layers together.

        That number is the first parameter of the (first) method: ``weight``, or ``t``. It takes the
        given shares of the range that all its knobs have in common; the rest is at its default.

        Returns:
            Name such as ``weight=0.6`` -> point. Empty if no knob turns that parameter.
        """
        lead = self._template.methods()[0].params[0].name
        turned = [d for d in self.dimensions if d.param is not None and d.param.name == lead]
        turned = [d for d in turned if not d.knob.choices]
        low = max((d.knob.low for d in turned), default=0.0)
        high = min((d.knob.high for d in turned), default=0.0)
        if not low < high:
            return {}
        points = {}
        for share in shares:
            level = low + share * (high - low)
            point = self.defaults() | {d.name: d.knob.snapped(level) for d in turned}
            points[f"{lead}={level:g}"] = point
        return points

    def _all(self) -> list[Dimension]:
        return [member for members in self._of.values() for member in members]

    def _dimensions(self, knob: Knob) -> list[Dimension]:
        count = knob.dimensions(self._layers.count)
        if knob.spread:
            self._check_spread(_shown(knob.place))
        name, taken = self._name(knob.place), {d.name for d in self._all()}
        parts = [f"/{self._part(knob, i)}" for i in range(count)] if knob.spread else [""]
        if not taken.isdisjoint(f"{name}{part}" for part in parts):
            name = f"{name} ({_shown(knob.place)})"
        param = self._param(knob.place)
        return [Dimension(f"{name}{part}", knob, param) for part in parts]

    def _check_spread(self, place: str) -> None:
        if self._layers.count == 0:
            raise MergeError(f"{place}: per and gradient need a model with layers")
        for name in self._after:
            for other in self._names:
                if name in other and other not in self._after:
                    raise MergeError(
                        f"{place}: per and gradient need a filter for {name}, which is a part of "
                        f"the name {other} too; use a plain range"
                    )

    def _part(self, knob: Knob, i: int) -> str:
        if knob.per is None:
            return f"anchor {i}"
        first = i * knob.per
        last = min(first + knob.per, self._layers.count) - 1
        return f"layer {first}" if first == last else f"layers {first}-{last}"

    def _per_layer(self, knob: Knob, numbers: list[Drawn]) -> list[Drawn]:
        if knob.per is None:
            return numbers
        return [numbers[i // knob.per] for i in range(self._layers.count)]

    def _param(self, place: Place) -> Param | None:
        if place == ("merge_method",):
            return None
        name = place[place.index("parameters") + 1]
        found = (m.param(str(name)) for m in self._template.methods())
        return next(param for param in found if param is not None)

    def _name(self, place: Place) -> str:
        """Return ``weight/model/filter`` for a place; the study's own words, no key paths."""
        if place == ("merge_method",):
            return "merge_method"
        at = place.index("parameters")
        parts = [str(place[at + 1])]
        owner: Any = self._template.data
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

    def _write_filters(self, data: dict[str, Any], place: Place, ours: list[Drawn]) -> None:
        """Give final norm and head the last value of ``ours``, the list at ``place``, by name."""
        at = place.index("parameters")
        owner: Any = data
        if at > 0:  # by its name, not its position: the base may have been left out before it
            model = self._template.data["models"][place[1]]["model"]
            owner = next(source for source in data["models"] if source["model"] == model)
        parameters = owner["parameters"]
        name = place[at + 1]
        if name not in parameters:  # left out: another method was chosen
            return
        setting = parameters[name]
        if len(place) == at + 2:
            cases = [{"value": setting}]
        elif isinstance(setting, dict):
            cases = [setting]
        else:
            cases = setting
        i = next(i for i, case in enumerate(cases) if case["value"] is ours)
        parameters[name] = [*cases[:i], *self._filters_before(cases, i), *cases[i:]]

    def _filters_before(self, cases: list[dict[str, Any]], i: int) -> list[dict[str, Any]]:
        earlier = [case.get("filter") for case in cases[:i]]
        return [
            {"filter": name, "value": cases[i]["value"][-1]}
            for name in self._after
            if _matches(cases[i].get("filter"), name)
            and not any(_matches(wanted, name) for wanted in earlier)
        ]


def _matches(wanted: str | None, tensor: str) -> bool:
    return wanted in (None, "*") or str(wanted) in tensor


def _on_grid(knob: Knob, value: Drawn) -> Drawn:
    """Return a drawn value as it goes into the recipe: free of the grid's float noise."""
    return value if knob.step is None else knob.snapped(float(value))


def _is_embedding(tensor: str) -> bool:
    """Return whether a tensor outside the layers stands before them (input embeddings)."""
    parts = tensor.split(".")
    return ("emb" in tensor and "out" not in tensor) or "wte" in parts or "wpe" in parts


def _default(dimension: Dimension) -> Drawn:
    knob, param = dimension.knob, dimension.param
    wanted = None if param is None else param.default if param.start is None else param.start
    if knob.choices:
        return wanted if wanted in knob.choices else knob.choices[0]
    middle = (knob.low + knob.high) / 2
    return knob.snapped(middle if wanted is None else float(wanted))


def _shown(place: Place) -> str:
    text = "recipe"
    for key in place:
        text += f"[{key}]" if isinstance(key, int) else f".{key}"
    return text

"""A recipe that somebody has -> the point of the space that is that recipe, if there is one.

Each knob's numbers are read off the values that the recipe gives the tensors that the knob decides.
Then the point's own recipe is held to the given one, tensor by tensor: what a unit cannot say is
refused, not rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from math import inf
from statistics import fmean
from typing import TYPE_CHECKING, Any

from merge_core.contract import Value
from merge_core.errors import MergeError, Problems, join
from merge_core.methods.registry import method
from merge_core.recipe.interpolate import value_of
from merge_core.recipe.schema import Recipe, Settings
from merge_core.validation import Place
from search.space.fit import fitted, logits
from search.space.names import depth_of
from search.space.units import Drawn
from search.spec.knob_places import METHOD, SEED, TAKE_PART, is_bare

if TYPE_CHECKING:
    from search.space.space import Dimension, Space

CLOSE = 1e-6  # two values of a parameter are the same up to that, absolute below 1, else relative
SAME = ("base_model", "dtype", "out_dtype", "slices", "modules", "tokenizer", "documents")


class Given:
    """What a recipe gives each tensor, by the dialect's own rules."""

    def __init__(self, recipe: Recipe, space: Space) -> None:
        self.recipe, self._space = recipe, space
        self.method = method(recipe.merge_method)
        base = recipe.base_model if self.method.base != "none" else None
        self.sources = {s.model: s for s in recipe.models if s.model != base}

    def value(self, model: str | None, name: str, tensor: str, t: float | None = None) -> Value:
        """Return a parameter's value for a tensor, of a model, or of the first for a shared place.

        Raises:
            ParameterError: The recipe gives none.
        """
        param = self.method.param(name)
        assert param is not None
        own: Settings = ()
        if param.scope == "model":
            own = self.sources[model or next(iter(self.sources))].parameters
        levels = (dict(own), dict(self.recipe.parameters))
        settings = [level[name] for level in levels if name in level]
        return value_of(param, settings, tensor, self._space.depth(tensor) if t is None else t)

    def all(self) -> Iterator[tuple[str | None, str]]:
        """Yield model and name of all parameters; None for the shared ones."""
        for param in self.method.params:
            for model in self.sources if param.scope == "model" else [None]:
                yield model, param.name


def point_of(space: Space, recipe: Recipe) -> dict[str, Drawn]:
    """Return the point whose recipe is the given one.

    Raises:
        MergeError: It is no point of the space; what differs, by key path of the study's recipe.
    """
    if not space.template.plain:
        raise MergeError(
            "recipe: of slices or modules no point is read off; use `start:` of ranges"
        )
    problems: Problems = []
    chosen = _chosen(space, recipe, problems)
    if not problems:
        given = Given(recipe, space)
        point = {**chosen, **_numbers(space, given, chosen)}
        made = Given(space.recipe(point), space)
        _compare(space, made, given, problems)
        if not problems:
            return point
    raise MergeError("; ".join(f"{path}: {rule}" for path, rule in problems))


def _chosen(space: Space, recipe: Recipe, problems: Problems) -> dict[str, Drawn]:
    """Return method and who takes part, where they are chosen."""
    template, found = space.template, dict[str, Drawn]()
    names = [one.name for one in template.methods()]
    if recipe.merge_method not in names:
        rule = f"expected {' or '.join(names)}, got {recipe.merge_method!r}"
        problems.append(("recipe.merge_method", rule))
    there = [source.model for source in recipe.models]
    may_lack = set()
    for place in space.places:
        if place == METHOD:
            found[space.at(place)[0].name] = recipe.merge_method
        elif place[-1] == TAKE_PART:
            model = str(template.model_at(place))
            found[space.at(place)[0].name] = model in there
            may_lack.add(model)
    base = template.data.get("base_model")
    listed = [s for s in template.data["models"] if not is_bare(s, base)]
    ours = [template.reference(source) for source in listed]
    based = recipe.base_model
    wanted = [x for x in ours if x != based and (x in there or x not in may_lack)]
    if wanted != (given := [x for x in there if x != based]):
        rule = f"the study merges {', '.join(wanted)}, this recipe {', '.join(given) or 'none'}"
        problems.append(("recipe.models", rule))
    return found


def _numbers(space: Space, given: Given, chosen: Mapping[str, Drawn]) -> dict[str, Drawn]:
    """Return the numbers that come nearest to what the recipe gives; of tied places their mean."""
    found: dict[Dimension, list[Drawn]] = {}
    over = {place: _over(space, given, place) for place in space.used(chosen) if _valued(place)}
    for together in space.sums(over):
        over |= zip(together, logits([over[place] for place in together]), strict=True)
    for place in space.used(chosen):
        knob = space.at(place)[0].knob
        if place == SEED:
            numbers: Sequence[Drawn] = [given.recipe.seed]
        elif place not in over:
            continue
        elif knob.choices:
            numbers = over[place][:1]
        else:
            numbers = fitted(knob, over[place], len(space.at(place)))
        for dimension, number in zip(space.at(place), numbers, strict=True):
            found.setdefault(dimension, []).append(number)
    return {dimension.name: _one(dimension, several) for dimension, several in found.items()}


def _valued(place: Place) -> bool:
    return "parameters" in place


def _one(dimension: Dimension, several: list[Any]) -> Drawn:
    """Return the value of the dimension's range that is nearest, or the choice."""
    if dimension.number is None:
        same = [x for x in dimension.knob.choices if x == several[0]]
        return next(
            (x for x in same if isinstance(x, bool) == isinstance(several[0], bool)),
            dimension.knob.choices[0],
        )
    return dimension.number.nearest(fmean(several))


def _over(space: Space, given: Given, place: Place) -> list[Any]:
    """Return what a recipe gives at the positions of a knob, of several tensors there the mean."""
    at = place.index("parameters")
    name = str(place[at + 1])
    model = space.template.model_at(place)
    inside: dict[int, list[Any]] = {}
    depth, (count, decided) = depth_of(space.template, place), space.decided(place)
    for position, tensor in decided:
        inside.setdefault(position, []).append(given.value(model, name, tensor, depth))
    means = {i: x[0] if isinstance(x[0], bool | str) else fmean(x) for i, x in inside.items()}
    numbers = [x for x in means.values() if not isinstance(x, str)]
    rest = fmean(numbers) if numbers else space.at(place)[0].knob.low  # where it decides no tensor
    return [means.get(i, rest) for i in range(count)]


def _compare(space: Space, made: Given, given: Given, problems: Problems) -> None:
    for key in SAME:
        mine, other = getattr(made.recipe, key), getattr(given.recipe, key)
        if mine != other:
            problems.append((f"recipe.{key}", f"the study has {mine!r}, this recipe {other!r}"))
    if made.method.draws and made.recipe.seed != given.recipe.seed:
        rule = f"the study has {made.recipe.seed}, this recipe {given.recipe.seed}"
        problems.append(("recipe.seed", rule))
    for model, name in made.all():
        _compare_values(space, made, given, (model, name), problems)


def _compare_values(
    space: Space, made: Given, given: Given, which: tuple[str | None, str], problems: Problems
) -> None:
    model, name = which
    pairs = {t: (made.value(model, name, t), given.value(model, name, t)) for t in space.tensors}
    other = {t: (a, b) for t, (a, b) in pairs.items() if not _close(a, b)}
    if other:
        tensor, (mine, wanted) = max(other.items(), key=lambda item: _distance(*item[1]))
        at = [x for x, one in space.template.sources() if model == space.template.reference(one)]
        where: Place = (*(at[0] if at else ()), "parameters", name)
        rule = (
            f"this recipe has {wanted} for {tensor}, the nearest that the study can say is {mine} "
            f"({len(other)} such tensors)"
        )
        problems.append((reduce(join, where, "recipe"), rule))


def _close(a: Any, b: Any) -> bool:
    return _distance(a, b) <= CLOSE


def _distance(a: Any, b: Any) -> float:
    if isinstance(a, bool | str) or isinstance(b, bool | str):
        return 0.0 if a == b and isinstance(a, bool) == isinstance(b, bool) else inf
    return float(abs(a - b) / max(1.0, abs(a), abs(b)))

"""A recipe that somebody has -> the point of the space that is that recipe, if there is one.

Each knob's numbers are read off the values that the recipe gives the tensors that the knob decides.
Then the point's own recipe is held to the given one, tensor by tensor: what a unit cannot say is
refused, not rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, reduce
from math import inf
from statistics import fmean
from typing import Any

from merge_core.contract import Value
from merge_core.errors import MergeError, Problems, join
from merge_core.methods.registry import method
from merge_core.recipe.interpolate import value_at
from merge_core.recipe.schema import ModulePart, Recipe, Settings, Slice, Source
from merge_core.validation import Place
from search.space.dimension import Dimension
from search.space.fit import fitted, logits
from search.space.mixture_inverse import mixture_point, same_mixture
from search.space.names import depth_of
from search.space.path_space import PathSpace
from search.space.space import Space
from search.space.units import Drawn
from search.spec.entries import entry_of, found_at, module_of, slice_of
from search.spec.knob_places import METHOD, SEED, is_bare
from search.spec.layer_ranges import RANGE
from search.spec.mixture_knobs import MOE, TAKE_PART

CLOSE = 1e-6  # two values of a parameter are the same up to that, absolute below 1, else relative
SAME = ("base_model", "dtype", "out_dtype", "tokenizer", "documents")
ELSE = ("moe", "merge_method", "seed", "chat_template", "name")  # looked at elsewhere, or in vain


class Given:
    """What a recipe gives each tensor, by the dialect's own rules."""

    def __init__(self, recipe: Recipe, space: Space) -> None:
        self.recipe, self._space = recipe, space
        self.method = method(recipe.merge_method)
        base = recipe.base_model if self.method.base != "none" else None
        self.sources = {s.model: s for s in recipe.models if s.model != base}

    def value(self, place: Place, tensor: str, t: float | None = None) -> Value:
        """Return what the recipe gives a tensor for the parameter at a place of the study's recipe.

        Of a parameter of models at a place for all of them it is that of the first.

        Raises:
            ParameterError: The recipe gives none.
        """
        param = self.method.param(str(place[place.index("parameters") + 1]))
        assert param is not None
        own = self._source(place).parameters if param.scope == "model" else ()
        depth = self._space.depth(place, tensor) if t is None else t
        return value_at(param, (own, *self._shared(place)), tensor, depth)

    @cached_property
    def all(self) -> dict[tuple[str, str | None, str], Value]:
        """All values by tensor, model (None for what they share) and parameter.

        Raises:
            ParameterError: The recipe gives none.
            CheckpointError: It has layers that are not there.
        """
        found: dict[tuple[str, str | None, str], Value] = {}
        for tensor, one in self._space.placed(self.recipe).items():
            owners = zip(one.sources, one.operands, strict=True)
            given = [(s.model, x.tensor, (s.parameters, *one.shared)) for s, x in owners]
            for param in self.method.params:
                shared = [(None, tensor, one.shared)]
                for model, name, levels in given if param.scope == "model" else shared:
                    found[tensor, model, param.name] = value_at(param, levels, name, one.t)
        return found

    def _source(self, place: Place) -> Source:
        if self.recipe.models:
            return self.sources[self._space.template.model_at(place) or next(iter(self.sources))]
        part, entry = self._part(place), entry_of(place)
        if not isinstance(part, Slice) and part.slices:  # a setting that all slices share
            part = part.slices[0]
        sources = part.sources if isinstance(part, Slice) else part.models
        return sources[int(entry[-1]) if entry else 0]

    def _part(self, place: Place) -> Slice | ModulePart | Recipe:
        name, at = module_of(place), slice_of(place)
        part: ModulePart | Recipe = self.recipe
        if name is not None:
            part = next(x for x in self.recipe.modules if x.name == name)
        return part if at is None else part.slices[int(at[-1])]

    def _shared(self, place: Place) -> list[Settings]:
        inside = [self._part(place)] if slice_of(place) else []
        of = [x for x in self.recipe.modules if x.name == module_of(place)]
        return [part.parameters for part in (*inside, *of, self.recipe)]


def point_of(space: Space, recipe: Recipe) -> dict[str, Drawn]:
    """Return the point whose recipe is the given one.

    Raises:
        MergeError: It is no point of the space; what differs, by key path of the study's recipe.
    """
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
    template, found = space.template, mixture_point(space, recipe, problems)
    names = [one.name for one in template.methods()]
    if recipe.merge_method not in names:
        rule = f"expected {' or '.join(names)}, got {recipe.merge_method!r}"
        problems.append(("recipe.merge_method", rule))
    there = [source.model for source in recipe.models]
    may_lack = set()
    for place in space.places:
        if place == METHOD:
            found[space.at(place)[0].name] = recipe.merge_method
        elif place[-1] == TAKE_PART and place[0] != MOE:
            model = str(template.model_at(place))
            found[space.at(place)[0].name] = model in there
            may_lack.add(model)
    if isinstance(space, PathSpace):
        return found | _path(space, recipe, problems)
    if not template.plain:
        return found | _ranges(space, recipe, problems)
    base = template.data.get("base_model")
    listed = [s for s in template.data["models"] if not is_bare(s, base)]
    ours = [template.reference(source) for source in listed]
    based = recipe.base_model
    wanted = [x for x in ours if x != based and (x in there or x not in may_lack)]
    if wanted != (given := [x for x in there if x != based]):
        rule = f"the study merges {', '.join(wanted)}, this recipe {', '.join(given) or 'none'}"
        problems.append(("recipe.models", rule))
    return found


def _path(space: PathSpace, recipe: Recipe, problems: Problems) -> dict[str, Drawn]:
    """Return the layer path."""
    try:
        return space.path_of(recipe)
    except MergeError as error:
        problems.append(("recipe.slices", str(error)))
        return {}


def _ranges(space: Space, recipe: Recipe, problems: Problems) -> dict[str, Drawn]:
    """Return the layers of slices that are chosen; the rest of the structure must be the same."""
    plain, ranges = recipe.plain(), [place for place in space.places if RANGE in place]
    of = {place: space.at(place)[0].name for place in ranges}
    try:
        found = {name: found_at(plain, place) for place, name in of.items()}
    except (LookupError, TypeError):  # another number of slices or sources
        found = {}
    values = {place: found[name] for place, name in of.items() if found}
    if len(values) < len(ranges) or _bare(space.template.filled(values)) != _bare(plain):
        form = "modules" if space.template.data.get("modules") else "slices"
        problems.append((f"recipe.{form}", "this recipe has other models, layers or slices"))
    return {name: float(number) for name, number in found.items()}


def _bare(data: Any) -> Any:
    """Return the slices and modules of a recipe's plain data without what they set."""
    if isinstance(data, Mapping):
        return {k: _bare(x) for k, x in data.items() if k not in ("parameters", *SAME, *ELSE)}
    return [_bare(x) for x in data] if isinstance(data, list) else data


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
    inside: dict[int, list[Any]] = {}
    depth, (count, decided) = depth_of(space.template, place), space.decided(place)
    for position, tensor in decided:
        inside.setdefault(position, []).append(given.value(place, tensor, depth))
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
    if not same_mixture(made.recipe, given.recipe):
        problems.append((f"recipe.{MOE}", "this recipe has another mixture than the study can say"))
    if problems:
        return
    pairs = {key: (x, given.all[key]) for key, x in made.all.items()}
    wrong = {key: pair for key, pair in pairs.items() if not _close(*pair)}
    for model, name in dict.fromkeys((model, name) for _, model, name in wrong):
        other = {key[0]: x for key, x in wrong.items() if key[1:] == (model, name)}
        tensor, (mine, wanted) = max(other.items(), key=lambda item: _distance(*item[1]))
        rule = (
            f"this recipe has {wanted} for {tensor}, the nearest that the study can say is {mine} "
            f"({len(other)} such tensors)"
        )
        problems.append((_where(space, model, name), rule))


def _where(space: Space, model: str | None, name: str) -> str:
    """Return the key path of a model's parameter, or of one that is shared."""
    of = space.template.sources()
    at = [place for place, one in of if model == space.template.reference(one)]
    place: Place = (*(at[0] if at else ()), "parameters", name)
    return reduce(join, place, "recipe")


def _close(a: Any, b: Any) -> bool:
    return _distance(a, b) <= CLOSE


def _distance(a: Any, b: Any) -> float:
    if isinstance(a, bool | str) or isinstance(b, bool | str):
        return 0.0 if a == b and isinstance(a, bool) == isinstance(b, bool) else inf
    return float(abs(a - b) / max(1.0, abs(a), abs(b)))

"""Recipes that nobody searched, always the first trials: what a search has to beat.

The plain ones (every parent, the base, the uniform merge of parents with the same layers) lie
outside the space and steer no sampler. The simple ones (the method's defaults, one number for
everything, the path through a parent's own layers) lie in it, as does the recipe that the user
starts from, and perhaps other recipes of theirs: the sampler learns from them, and CMA-ES starts at
the best of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from merge_core.contract import Param
from merge_core.errors import MergeError
from merge_core.recipe.schema import Recipe, Source
from search.space.inverse import point_of
from search.space.path_space import PathSpace
from search.space.space import Space
from search.space.units import Drawn
from search.spec.knob_places import SEED
from search.spec.mixture_knobs import DEFAULTS as DEFAULTS_OF_MIXTURE
from search.spec.mixture_knobs import MOE, TAKE_PART
from search.spec.ranges import Knob
from search.spec.study_file import StudySpec

BASE, UNIFORM, DEFAULTS = "base", "uniform", "defaults"
PARENT, SIMPLE, STARTED, PRIOR = "parent:", "simple:", "start:", "prior:"
MEAN = "mean:"  # of the last generation of a search; no baseline, but not drawn by a sampler either


@dataclass(frozen=True)
class Baseline:
    """A trial that no sampler asked for; ``params`` is empty for recipes outside the space."""

    name: str
    recipe: Recipe
    params: Mapping[str, Any] = field(default_factory=dict)


def baselines(
    spec: StudySpec, space: Space, prior: Mapping[str, Recipe] | None = None
) -> list[Baseline]:
    """Return a study's baselines in the order of their trials.

    Args:
        spec: The study.
        space: Its dimensions.
        prior: Name -> recipe of what another study found.

    Raises:
        MergeError: The recipe to start from is no point of the space.
    """
    data = spec.template.data
    based = any(method.base != "none" for method in spec.template.methods())
    base = spec.template.base() if based else None  # else it is a parent like the others
    models = [name for name in spec.template.references() if name != base]
    types = {k: data[k].removeprefix("torch.") for k in ("dtype", "out_dtype") if data.get(k)}
    found = [Baseline(BASE, _mean([base], types))] if base else []
    found += [Baseline(f"{PARENT}{name}", _mean([name], types)) for name in models]
    if space.alike:
        several = list(spec.template.experts()) or models
        found.append(Baseline(UNIFORM, _mean(several, types)))
    simple = {f"{SIMPLE}{name}": point for name, point in levels(space).items()}
    if isinstance(space, PathSpace):
        others = space.through(defaults(space))
        simple |= {f"{SIMPLE}path={name}": point for name, point in others.items()}
    points = {DEFAULTS: defaults(space), **simple}
    found += [_inside(name, space, point) for name, point in points.items()]
    if spec.search.start is not None:
        found.append(_inside(spec.start_name, space, _start(space, spec.search.start)))
    own = {**spec.baselines, **(prior or {})}
    return found + [_own(name, recipe, space) for name, recipe in own.items()]


def cut(space: PathSpace, first: int, size: int) -> Baseline:
    """Return the path of the entry model without a block of layers as a simple baseline."""
    name = f"{first}" if size == 1 else f"{first}-{first + size - 1}"
    point = space.without(defaults(space), first, size)
    return _inside(f"{SIMPLE}path=without {name}", space, point)


def mean_name(searched: int) -> str:
    """Return the name of the mean of the last generation of a search of so many trials."""
    return f"{MEAN}{searched}"


def generation_mean(space: Space, searched: int, point: Mapping[str, Any]) -> Baseline:
    """Return the mean of the last generation, a value for every knob, as what is to be settled."""
    return _inside(mean_name(searched), space, point)


def _start(space: Space, recipe: Recipe) -> dict[str, Drawn]:
    try:
        return point_of(space, recipe)
    except MergeError as error:
        raise MergeError(
            f"search.start: the recipe is no point of this space: {error}; widen the space, or "
            f"name the recipe under `baselines:`"
        ) from error


def _own(name: str, recipe: Recipe, space: Space) -> Baseline:
    """Return the user's baseline, which steers if it lies in the space."""
    try:
        point = point_of(space, recipe)
    except MergeError:
        return Baseline(name, recipe)
    return replace(_inside(name, space, point), recipe=recipe)


def _inside(name: str, space: Space, point: Mapping[str, Drawn]) -> Baseline:
    """Return a baseline that lies in the space; its params are those that change something."""
    active = space.active(point)
    return Baseline(
        name, space.recipe(point), {key: x for key, x in point.items() if key in active}
    )


def defaults(space: Space) -> dict[str, Drawn]:
    """Return where the study file starts each knob; else the method's own default.

    That is moved into the range; of choices it is the first, where it is none of them.
    """
    return space.point(_default)


def levels(
    space: Space, shares: Iterable[float] = (0.2, 0.4, 0.6, 0.8, 1.0)
) -> dict[str, dict[str, Drawn]]:
    """Return points where one number is turned for all models and layers together.

    That number is the first parameter of the (first) method: ``weight``, or ``t``. It takes the
    given shares of the range that all its knobs have in common; the rest is at its default.

    Returns:
        Name such as ``weight=0.6`` -> point. Empty if no knob turns that parameter.
    """
    lead = next((param.name for param in space.template.methods()[0].params), None)
    turned = [d.knob for d in space.dimensions if d.param is not None and d.param.name == lead]
    turned = [knob for knob in turned if not knob.choices and knob.sum is None]
    low = max((knob.low for knob in turned), default=0.0)
    high = min((knob.high for knob in turned), default=0.0)
    if not low < high:
        return {}
    found = [low + share * (high - low) for share in shares]
    return {f"{lead}={level:g}": _turned(space, turned, level) for level in found}


def _turned(space: Space, turned: Collection[Knob], level: float) -> dict[str, Drawn]:
    """Return the defaults, with one value for the knobs that are turned."""

    def value(knob: Knob, param: Param | None) -> Drawn:
        return knob.snapped(level) if knob in turned else _default(knob, param)

    return space.point(value)


def _mean(models: list[str], types: Mapping[str, Any]) -> Recipe:
    """Return the plain mean of some models; of one model, the model itself."""
    sources = tuple(Source(name, (("weight", 1.0),)) for name in models)
    return Recipe("linear", sources, **types)


def _default(knob: Knob, param: Param | None) -> Drawn:
    wanted = None if param is None else param.default if param.start is None else param.start
    if knob.start is not None:
        return knob.start
    if knob.place[-1] == TAKE_PART:
        return True
    if knob.place == SEED:
        wanted = 0
    if knob.place[0] == MOE:
        wanted = DEFAULTS_OF_MIXTURE.get(str(knob.place[-1]))
    if knob.choices:
        return wanted if wanted in knob.choices else knob.choices[0]
    middle = (knob.low + knob.high) / 2
    return knob.snapped(middle if wanted is None else float(wanted))

"""Recipes that nobody searched, always the first trials: what a search has to beat.

The plain ones (every parent, the base, the uniform merge) lie outside the space and steer no
sampler. The simple ones (the method's defaults, one number for everything) lie in it: the sampler
learns from them, and CMA-ES starts at the best of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from merge_core.recipe.schema import Recipe, Source
from search.space.space import Space
from search.spec.study_file import StudySpec

BASE, UNIFORM, DEFAULTS = "base", "uniform", "defaults"
PARENT, SIMPLE = "parent:", "simple:"


@dataclass(frozen=True)
class Baseline:
    """A trial that no sampler asked for; ``params`` is empty for recipes outside the space."""

    name: str
    recipe: Recipe
    params: Mapping[str, Any] = field(default_factory=dict)


def baselines(spec: StudySpec, space: Space) -> list[Baseline]:
    """Return a study's baselines in the order of their trials."""
    data = spec.template.data
    based = any(method.base != "none" for method in spec.template.methods())
    base = spec.template.base() if based else None  # else it is a parent like the others
    models = [name for name in spec.template.references() if name != base]
    types = {k: data[k].removeprefix("torch.") for k in ("dtype", "out_dtype") if k in data}
    found = [Baseline(BASE, _mean([base], types))] if base else []
    found += [Baseline(f"{PARENT}{name}", _mean([name], types)) for name in models]
    found.append(Baseline(UNIFORM, _mean(models, types)))
    simple = {f"{SIMPLE}{name}": point for name, point in space.levels().items()}
    points = {DEFAULTS: space.defaults(), **simple}
    found += [Baseline(name, space.recipe(point), point) for name, point in points.items()]
    return found + [Baseline(name, recipe) for name, recipe in spec.baselines.items()]


def _mean(models: list[str], types: Mapping[str, Any]) -> Recipe:
    """Return the plain mean of some models; of one model, the model itself."""
    sources = tuple(Source(name, (("weight", 1.0),)) for name in models)
    return Recipe("linear", sources, **types)

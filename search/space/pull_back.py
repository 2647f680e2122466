"""How a loss changes with drawn numbers, from how it changes with each tensor's parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from merge_core.contract import Method, Value
from merge_core.errors import ParameterError
from merge_core.methods.registry import method
from merge_core.recipe.interpolate import value_of
from merge_core.recipe.schema import Recipe, Settings
from search.space.traced import slopes

if TYPE_CHECKING:
    from merge_core.kernels.gradients import Gradients


def pulled_back(
    recipe: Recipe, found: Mapping[str, Gradients], depth: Callable[[str], float]
) -> dict[str, float]:
    """Return ``dL / d drawn`` of every drawn number that a tensor's value carries a derivative by.

    Args:
        recipe: A plain ``models:`` recipe whose values are ``Traced``.
        found: Stored tensor -> the derivatives by its parameters, ``values`` in the recipe's order.
        depth: Tensor -> its place in [0, 1], as the dialect's interpolation has it.

    Raises:
        ParameterError: A tensor has derivatives for other models than the recipe merges.
    """
    total: dict[str, float] = {}
    chosen = method(recipe.merge_method)
    for tensor, changes in found.items():
        t = depth(tensor)
        for given, slope_of in _scopes(recipe, chosen, tensor, changes):
            for name, slope in slope_of.items():
                for drawn, by in slopes(_value(chosen, name, given, tensor, t)).items():
                    total[drawn] = total.get(drawn, 0.0) + slope * by
    return total


def _scopes(
    recipe: Recipe, chosen: Method, tensor: str, changes: Gradients
) -> Iterator[tuple[tuple[Settings, ...], Mapping[str, float]]]:
    """Yield the settings of each operand, then the shared ones, each with its derivatives."""
    base = recipe.base_model if chosen.base != "none" else None
    sources = [source for source in recipe.models if source.model != base]
    if len(sources) != len(changes.values):
        raise ParameterError(
            f"{tensor}: got derivatives for {len(changes.values)} models, the recipe merges "
            f"{len(sources)}; give one mapping for each, in the recipe's order"
        )
    for source, slope_of in zip(sources, changes.values, strict=True):
        yield (source.parameters, recipe.parameters), slope_of
    yield (recipe.parameters,), changes.shared


def _value(
    chosen: Method, name: str, given: tuple[Settings, ...], tensor: str, t: float
) -> Value | None:
    param = chosen.param(name)
    settings = [setting for level in given for key, setting in level if key == name]
    return None if param is None else value_of(param, settings, tensor, t)

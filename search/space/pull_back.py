"""How a loss changes with drawn numbers, from how it changes with each tensor's parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from merge_core.contract import Method, Value
from merge_core.errors import ParameterError
from merge_core.methods.registry import method
from merge_core.plan.layout import Placed
from merge_core.recipe.interpolate import value_at
from merge_core.recipe.schema import Recipe, Settings
from search.space.traced import slopes

if TYPE_CHECKING:
    from merge_core.kernels.gradients import Gradients


def pulled_back(
    recipe: Recipe, found: Mapping[str, Gradients], placed: Mapping[str, Placed]
) -> dict[str, float]:
    """Return ``dL / d drawn`` of every drawn number that a tensor's value carries a derivative by.

    Args:
        recipe: Its values are ``Traced``.
        found: Stored tensor -> the derivatives by its parameters, ``values`` in the recipe's order.
        placed: Stored tensor -> which settings of the recipe hold for it.

    Raises:
        ParameterError: A tensor has derivatives for other models than the recipe merges.
    """
    total: dict[str, float] = {}
    chosen = method(recipe.merge_method)
    for tensor, changes in found.items():
        one = placed[tensor]
        for of, given, slope_of in _scopes(one, changes):
            for name, slope in slope_of.items():
                for drawn, by in slopes(_value(chosen, name, given, of, one.t)).items():
                    total[drawn] = total.get(drawn, 0.0) + slope * by
    return total


def _scopes(
    placed: Placed, changes: Gradients
) -> Iterator[tuple[str, tuple[Settings, ...], Mapping[str, float]]]:
    """Yield for each operand, then for what they share, tensor's name, settings, derivatives."""
    if len(placed.sources) != len(changes.values):
        raise ParameterError(
            f"{placed.tensor}: got derivatives for {len(changes.values)} models, the recipe merges "
            f"{len(placed.sources)}; give one mapping for each, in the recipe's order"
        )
    for source, operand, slope_of in zip(
        placed.sources, placed.operands, changes.values, strict=True
    ):
        yield operand.tensor, (source.parameters, *placed.shared), slope_of
    yield placed.tensor, placed.shared, changes.shared


def _value(
    chosen: Method, name: str, given: tuple[Settings, ...], tensor: str, t: float
) -> Value | None:
    param = chosen.param(name)
    return None if param is None else value_at(param, given, tensor, t)

"""A recipe's numbers, each with how it goes over the layers, whether it has models or slices.

Slices that leave every layer in its place are models: one over all layers, as many recipes on the
hub have it, or several bands of layers, as mergekit-evolve writes its best one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from merge_core.errors import MergeError
from merge_core.recipe.schema import Conditional, Recipe, Scalar, Settings, Slice


class StackedError(MergeError):
    """A recipe whose slices are more than bands of layers in their places."""


@dataclass(frozen=True)
class Case:
    """The values that a recipe has for the tensors of one filter."""

    filter: str | None
    values: tuple[Scalar, ...]
    keys: Mapping[str, Any]  # of a knob over them: how it goes over the layers
    apart: bool = False  # whether several values become a knob each


Cases = dict[str, list[Case]]  # parameter -> what it is, filter by filter


@dataclass(frozen=True)
class Layered:
    """A recipe as models, each with its own settings, and the shared ones."""

    base: str | None
    models: Mapping[str, Cases]
    shared: Cases
    bands: tuple[tuple[int, int], ...] = ()  # first and last layer of its slices


def layered(recipe: Recipe, layers: int | None) -> Layered:
    """Return a recipe's settings.

    Args:
        recipe: Of one document, without modules.
        layers: Of its models; None where that is not known.

    Raises:
        StackedError: It stacks layers anew.
    """
    if not recipe.slices:
        models = {source.model: _cases([source.parameters], [{}]) for source in recipe.models}
        return Layered(recipe.base_model, models, _cases([recipe.parameters], [{}]))
    bands = _bands(recipe.slices, layers)
    names = [[source.model for source in one.sources] for one in recipe.slices]
    bases = {one.base_model or recipe.base_model for one in recipe.slices}
    for i, others in enumerate(names):
        if sorted(others) != sorted(names[0]):
            raise StackedError(f"slices[{i}]: has other models than slices[0]")
    if len(bases) > 1:
        raise StackedError("slices: have different bases")
    spread = _spread(bands)
    own: dict[str, list[Settings]] = {name: [] for name in names[0]}
    for one in recipe.slices:
        for source in one.sources:
            own[source.model].append(source.parameters)
    found = {name: _cases(settings, spread) for name, settings in own.items()}
    of_slices = {name for one in recipe.slices for name, _ in one.parameters}
    for_all = tuple(pair for pair in recipe.parameters if pair[0] not in of_slices)
    shared = _cases([one.parameters for one in recipe.slices], spread)
    return Layered(bases.pop(), found, shared | _cases([for_all], [{}]), bands)


def _bands(slices: Sequence[Slice], layers: int | None) -> tuple[tuple[int, int], ...]:
    """Return the layers of each slice, which together are all layers in their order.

    Raises:
        StackedError: They are not.
    """
    bands, begin = [], 0
    for i, one in enumerate(slices):
        ranges = {source.layer_range for source in one.sources}
        if ranges == {None} and len(slices) == 1:
            return ()
        if len(ranges) > 1 or None in ranges:
            raise StackedError(f"slices[{i}]: has different layers of its models")
        first, after = ranges.pop() or (0, 0)
        if first != begin or after <= first:
            raise StackedError(f"slices[{i}]: has the layers from {first} on where {begin} is next")
        bands.append((first, after - 1))
        begin = after
    if layers is not None and begin != layers:
        raise StackedError(f"slices: have {begin} of {layers} layers")
    return tuple(bands)


def _spread(bands: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Return the keys of a knob over bands, once for each."""
    if len(bands) < 2:
        return [{}]
    sizes = {last - first + 1 for first, last in bands[:-1]}
    (first, last), size = bands[-1], max(sizes)
    if len(sizes) == 1 and last - first + 1 <= size:
        return [{"per": "layer" if size == 1 else size}] * len(bands)
    return [{"per": [list(band) for band in bands]}] * len(bands)


def _cases(settings: Sequence[Settings], spread: Sequence[Mapping[str, Any]]) -> Cases:
    """Return the cases of one settings, or of those of several slices side by side.

    Raises:
        StackedError: Slices have other parameters or filters, or gradients of their own.
    """
    given = [dict(one) for one in settings]
    names = dict.fromkeys(name for one in given for name in one)
    return {n: _side_by_side(n, [one.get(n) for one in given], spread) for n in names}


def written(settings: Settings) -> Cases:
    """Return the cases of settings that stay where they are; a gradient's values are apart."""
    return {
        name: [
            Case(case.filter, case.value, {"gradient": len(case.value)}, apart=True)
            if isinstance(case.value, tuple)
            else Case(case.filter, (case.value,), {})
            for case in _conditionals(setting)
        ]
        for name, setting in settings
    }


def _side_by_side(
    name: str, given: Sequence[Any], spread: Sequence[Mapping[str, Any]]
) -> list[Case]:
    several = len(given) > 1
    found: dict[str | None, list[Scalar]] = {}
    keys: dict[str | None, Mapping[str, Any]] = {}
    for i, setting in enumerate(given):
        cases = list(_conditionals(setting))
        if i and [case.filter for case in cases] != [*found]:
            raise StackedError(f"{name}: not all slices have it in the same way")
        for case in cases:
            values = case.value if isinstance(case.value, tuple) else (case.value,)
            if several and len(values) > 1:
                raise StackedError(f"{name}: a gradient inside one of several slices")
            found.setdefault(case.filter, []).extend(values)
            own = {"gradient": len(values)} if len(values) > 1 else {}
            keys[case.filter] = own if not several else spread[i]
    return [Case(part, tuple(values), keys[part]) for part, values in found.items()]


def _conditionals(setting: Any) -> Iterable[Conditional]:
    if setting is None:
        return []
    if isinstance(setting, tuple) and isinstance(setting[0], Conditional):
        return setting
    return [Conditional(None, setting)]

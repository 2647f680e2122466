"""What a recipe says layer by layer, read off the recipe alone: no tensor names are stored.

The dialect states values over the layers as lists and picks tensors by parts of their names, so a
list is a column of numbers and a filter is its title. A filter that is a tensor's whole name is a
cell: of its layer where it has a number in it, else of what stands outside the layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from merge_core.recipe.interpolate import at
from merge_core.recipe.schema import (
    Conditional,
    ModulePart,
    Recipe,
    Scalar,
    Setting,
    Settings,
    Slice,
    Source,
)

_IN_LAYER = re.compile(r"(?:^|.*?\.)(\d+)\.(.+)")
_WHOLE_NAME = (".weight", ".bias")
ALL, OTHERS = "all tensors", "all others"
Cells = dict[int, float]  # layer -> value


@dataclass
class Map:
    """A parameter of a model, or one that all share (``model`` empty), over the layers.

    Args:
        part: Module or document it is of; "" for the recipe itself.
        parameter: Its name.
        model: Whose it is.
        columns: Part of the layers' tensors -> layer of the result -> value.
        outside: Tensor outside the layers -> value.
    """

    part: str
    parameter: str
    model: str
    columns: dict[str, Cells] = field(default_factory=dict)
    outside: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others of a recipe."""
        return self.part, self.parameter, self.model

    @property
    def varies(self) -> bool:
        """Whether some column has several values."""
        return any(len(set(cells.values())) > 1 for cells in self.columns.values())

    def values(self) -> list[float]:
        """Return every number of it."""
        inside = [x for cells in self.columns.values() for x in cells.values()]
        return [*inside, *self.outside.values()]


Found = dict[tuple[str, str, str], Map]


def maps(recipe: Recipe) -> list[Map]:
    """Return every parameter of a recipe with numbers, over the layers."""
    found: Found = {}
    for document in (*recipe.documents, recipe):
        part = document.name or ""
        whole: list[tuple[str, Recipe | ModulePart]] = [("", document)]
        for name, one in [*whole, *((m.name, m) for m in document.modules)]:
            _add(found, "/".join(x for x in (part, name) if x), one, document)
    return [one for one in found.values() if one.values()]


def path(recipe: Recipe) -> list[tuple[str, int, float]]:
    """Return the layers that a recipe stacks: model, layer there, scale of its input; else none.

    None: some slice merges several models, or the recipe has no slices.
    """
    if not recipe.slices or any(len(one.sources) != 1 for one in recipe.slices):
        return []
    found = []
    for one in recipe.slices:
        (source,) = one.sources
        if source.layer_range is None:
            return []
        for i, layer in enumerate(range(*source.layer_range)):
            found.append((source.model, layer, one.input_scale if i == 0 else 1.0))
    return found


def _add(found: Found, part: str, one: Recipe | ModulePart, document: Recipe) -> None:
    start = 0
    for piece in one.slices:
        count = _layers_of(piece)
        for model, settings in (("", document.parameters), *_levels(piece, piece.sources)):
            _put(found, part, model, settings, range(start, start + count))
        start += count
    if not one.slices:
        levels = list(_levels(one, one.models))
        count = max((_count(setting) for _, own in levels for _, setting in own), default=1)
        for model, settings in levels:
            _put(found, part, model, settings, range(count))


def _levels(
    one: Recipe | ModulePart | Slice, sources: Sequence[Source]
) -> Iterator[tuple[str, Settings]]:
    yield "", one.parameters
    for source in sources:
        yield source.model, source.parameters


def _layers_of(piece: Slice) -> int:
    first = piece.sources[0].layer_range
    return 1 if first is None else first[1] - first[0]


def _count(setting: Setting) -> int:
    """Return how many layers a setting speaks of."""
    if not isinstance(setting, tuple):
        return 1
    if not isinstance(setting[0], Conditional):
        return len(setting)
    found = [1]
    for case in setting:
        named = _IN_LAYER.fullmatch(str(case.filter)) if isinstance(case, Conditional) else None
        found.append(int(named[1]) + 1 if named else 1)
        if isinstance(case, Conditional) and isinstance(case.value, tuple):
            found.append(len(case.value))
    return max(found)


def _put(found: Found, part: str, model: str, settings: Settings, layers: range) -> None:
    for name, setting in settings:
        one = found.setdefault((part, name, model), Map(part, name, model))
        cases = (
            setting
            if isinstance(setting, tuple) and isinstance(setting[0], Conditional)
            else (Conditional(None, setting),)
        )
        for case in cases:
            assert isinstance(case, Conditional)
            _place(one, case, len(cases) == 1 and case.filter in (None, "*"), layers)


def _place(one: Map, case: Conditional, alone: bool, layers: range) -> None:
    """Put what one entry says into a map; ``alone``: it holds for all tensors."""
    value, title = case.value, _title(case.filter, alone)
    named = _IN_LAYER.fullmatch(str(case.filter))
    if named and not isinstance(value, tuple):
        one_layer = int(named[1])
        here, title = range(one_layer, one_layer + 1), _title(named[2], alone)
    elif not isinstance(value, tuple) and str(case.filter).endswith(_WHOLE_NAME):
        if _is_number(value):
            one.outside[title] = float(value)
        return
    else:
        here = layers
    for layer in here:
        t = (layer - here.start) / (len(here) - 1) if len(here) > 1 else 1.0
        x = at(value, t) if isinstance(value, tuple) else value
        if _is_number(x):
            one.columns.setdefault(title, {})[layer] = float(x)


def _title(wanted: str | None, alone: bool) -> str:
    if wanted in (None, "*"):
        return ALL if alone else OTHERS
    return str(wanted).removesuffix(".weight")


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""Settings of a study's recipe that change nothing: filters that no tensor has, too wide bands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import Any

from merge_core.errors import join
from search.space.space import Space
from search.spec.recipe_template import Template


def unmatched_filters(template: Template, names: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield a warning for each filter that is no part of any tensor's name.

    Args:
        template: The recipe of a study.
        names: Of the tensors of each model.
    """
    every = {name for some in names for name in some}
    for path, part in _filters(template.data, "recipe"):
        if part != "*" and not any(part in name for name in every):
            yield f"{path}: {part!r} changes nothing: no tensor of the models has it in its name"


def _filters(data: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield key path and text of every filter in plain data."""
    if isinstance(data, Mapping):
        if isinstance(data.get("filter"), str) and "value" in data:
            yield join(path, "filter"), data["filter"]
        for key, value in data.items():
            yield from _filters(value, join(path, key))
    elif isinstance(data, list | tuple):
        for i, value in enumerate(data):
            yield from _filters(value, join(path, i))


def beyond_layers(space: Space) -> Iterator[str]:
    """Yield a warning for each range with more layers to a number than there are layers."""
    for place in space.places:
        knob = space.at(place)[0].knob
        if not knob.spread or not isinstance(knob.per, int):
            continue
        count, _ = space.decided(place)
        if knob.per > count:
            yield (
                f"{reduce(join, place, 'recipe')}: `per: {knob.per}` is beyond the {count} layers "
                "there: one number decides all of them; write a smaller one, or omit `per`"
            )

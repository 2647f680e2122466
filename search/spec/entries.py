"""Where in a recipe models are named and settings shared: at the top, in slices and in modules.

On plain data, which may be wrong anywhere: what is not of the expected form has no entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any

from merge_core.validation import Place


def parts(data: Any, place: Place = ()) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Yield what has shared settings, after its place: the recipe, its modules, and all slices."""
    if not isinstance(data, Mapping):
        return
    yield place, data
    slices = data.get("slices")
    for i, one in enumerate(slices if isinstance(slices, list) else ()):
        if isinstance(one, Mapping):
            yield (*place, "slices", i), one
    modules = data.get("modules") if not place else None
    for name, part in modules.items() if isinstance(modules, Mapping) else ():
        yield from parts(part, ("modules", name))


def entries(data: Any) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Yield every entry that names a model, after its place, in the order of the recipe.

    A base has no entry of its own.
    """
    for place, part in parts(data):
        key = "sources" if _is_slice(place) else "models"
        listed = part.get(key)
        for i, entry in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(entry, Mapping):
                yield (*place, key, i), entry


def bases(data: Any) -> Iterator[Any]:
    """Yield what stands as a base: the recipe's, then those of slices."""
    for place, part in parts(data):
        if part.get("base_model") and (not place or _is_slice(place)):
            yield part["base_model"]


def found_at(data: Any, place: Place) -> Any:
    """Return what stands at a place that is there."""
    return reduce(lambda owner, key: owner[key], place, data)


def entry_of(place: Place) -> Place | None:
    """Return the place of the model's entry that a place is in, or None outside of entries."""
    start = _inside_module(place)
    for i in range(start, len(place) - 1):
        if place[i] in ("models", "sources") and isinstance(place[i + 1], int):
            return place[: i + 2]
    return None


def slice_of(place: Place) -> Place | None:
    """Return the place of the slice that a place is in, or None outside of slices."""
    start = _inside_module(place)
    inside = place[start : start + 1] == ("slices",) and len(place) > start + 1
    return place[: start + 2] if inside else None


def module_of(place: Place) -> str | None:
    """Return the name of the module that a place is in, or None outside of modules."""
    return str(place[1]) if _inside_module(place) else None


def _inside_module(place: Place) -> int:
    """Return at which position of a place its part begins: behind a module's name."""
    return 2 if place[:1] == ("modules",) and len(place) > 1 else 0


def _is_slice(place: Place) -> bool:
    return len(place) >= 2 and place[-2] == "slices"

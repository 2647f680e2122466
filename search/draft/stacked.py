"""A recipe that stacks layers anew, or has modules, as a study: its numbers stay where they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from merge_core.methods.registry import method
from merge_core.recipe.schema import ModulePart, Recipe, Settings, Slice
from merge_core.validation import Place
from search.draft.knobs import TENSORS, Spread
from search.draft.layered import written
from search.draft.models import Paths, Seen, look, other_vocabulary
from search.draft.numbers import Numbers, nothing_to_search
from search.spec.entries import found_at, slice_of

ONE = Spread({}, "one number for all layers")


class Stacked:
    """The recipe section of a study of slices or modules, every range with its number as start."""

    def __init__(self, recipe: Recipe, paths: Paths, why: str = "") -> None:
        found = method(recipe.merge_method)
        self.notes: dict[str, str] = {}
        self.seen: Seen | None = look(recipe.base_model or recipe.names()[0], paths.roots)
        if recipe.tokenizer is not None:
            self.notes["tokenizer"] = other_vocabulary(recipe.base_model or recipe.names()[0])
        if why:
            self.notes["slices"] = f"stay slices: {why.removeprefix('slices: ')}"
        numbers = Numbers(found)
        names = {name: paths.reference(name) for name in recipe.names()}
        plain = replace(recipe, tokenizer=None, name=None)
        self.original = plain.with_references(names)
        self.recipe = self.original.plain()
        for place, settings in _settings(self.original):
            inside = slice_of(place) is not None or place[-2:-1] == ("models",)
            numbers.spread = TENSORS if found.params[0].smooth and inside else ONE
            if settings:
                made = numbers.parameters(written(settings), (*place, "parameters"))
                found_at(self.recipe, place)["parameters"] = made
        if not numbers.at:
            raise nothing_to_search(found)
        self.comments = numbers.comments


def _settings(recipe: Recipe) -> Iterator[tuple[Place, Settings]]:
    """Yield the settings of all that has some, after its place."""
    yield from _inside(recipe, ())
    for part in recipe.modules:
        yield from _inside(part, ("modules", part.name))


def _inside(part: Recipe | ModulePart, place: Place) -> Iterator[tuple[Place, Settings]]:
    yield place, part.parameters
    for i, source in enumerate(part.models):
        yield (*place, "models", i), source.parameters
    for i, one in enumerate(part.slices):
        yield from _of_slice(one, (*place, "slices", i))


def _of_slice(one: Slice, place: Place) -> Iterator[tuple[Place, Settings]]:
    yield place, one.parameters
    for i, source in enumerate(one.sources):
        yield (*place, "sources", i), source.parameters

"""A recipe that stacks layers anew, or has modules, as a study.

Its numbers become ranges where they are. Without any, the layers themselves are searched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from merge_core.contract import Method
from merge_core.methods.registry import method
from merge_core.recipe.schema import ModulePart, Recipe, Settings, Slice
from merge_core.validation import Place
from search.draft.knobs import TENSORS, Spread
from search.draft.layered import written
from search.draft.models import Paths, Seen, look, other_vocabulary
from search.draft.numbers import Numbers, nothing_to_search
from search.spec.entries import found_at, slice_of
from search.spec.layer_path import METHOD

ONE = Spread({}, "one number for all layers")


class Stacked:
    """The recipe section of a study of slices or modules, every range with its number as start.

    Raises:
        ParameterError: There is nothing to search.
    """

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
        self.comments = numbers.comments
        if not numbers.at:
            self._as_path(self.original, found)

    def _as_path(self, recipe: Recipe, found: Method) -> None:
        """Search the layers themselves, where a recipe stacks them as they are.

        Raises:
            ParameterError: It does not.
        """
        hops = _hops(recipe)
        if found.name != METHOD or not hops:
            raise nothing_to_search(found)
        entry = hops[0][0]
        layers = self.seen.layers if self.seen else None
        ends = hops[0][1] == 0 and hops[-1] == (entry, (layers or hops[-1][1] + 1) - 1)
        self.notes["slices"] = "its layers are searched: their order, repeats and what is left out"
        if not ends:
            self.notes["slices"] += (
                f"; every path has the first and the last layer of {entry}, this recipe has not: "
                "the search does not start from it"
            )
        parents = list(dict.fromkeys(model for model, _ in hops))
        path = {
            "parents": parents,
            "repeats": max(Counter(hops).values()),
            "max_layers": len(hops),
        }
        self.recipe = {**self.recipe, "slices": {"path": path}}
        self.comments["recipe.slices.path"] = "through which layers, in which order, how often"


def _hops(recipe: Recipe) -> list[tuple[str, int]]:
    """Return model and number of every layer in order; nothing where some are merged."""
    if recipe.modules or any(len(one.sources) > 1 for one in recipe.slices):
        return []
    sources = [source for one in recipe.slices for source in one.sources]
    return [(s.model, i) for s in sources for i in range(*(s.layer_range or (0, 0)))]


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

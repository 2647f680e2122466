"""Over which layers and tensors a knob is spread: all of the models', a module's, or a slice's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, reduce
from typing import Any, NamedTuple

from merge_core.architecture import layers
from merge_core.errors import Problems, join
from merge_core.methods.registry import method
from merge_core.plan.layout import Placed, lay_out
from merge_core.plan.stack_fit import too_few
from merge_core.recipe.schema import Recipe
from merge_core.validation import Place
from search.space.over_layers import OverLayers
from search.spec.entries import entry_of, found_at, module_of, slice_of
from search.spec.layer_ranges import RANGE
from search.spec.ranges import Knob
from search.spec.recipe_template import Template

Names = Mapping[str, Sequence[str]]  # model -> its tensors that are merged, in the modules' order


class Span(NamedTuple):
    """Layers of a model: the first, and the one after the last, at most."""

    model: str
    first: int
    end: int
    fixed: bool  # whether no knob changes them


class Scopes:
    """What knobs of one recipe decide over.

    Args:
        template: The recipe with knobs.
        tensors: Names of all tensors of the model that gives the config.
        parents: Those of all models; None: all have the same.
    """

    def __init__(
        self, template: Template, tensors: Sequence[str], parents: Names | None = None
    ) -> None:
        self._template, self._tensors = template, tuple(tensors)
        main = template.base_or_first()
        named = parents or dict.fromkeys(template.references(), self._tensors)
        self._names: Names = {main: self._tensors, **named}
        self._main = main
        self._known: dict[Place, OverLayers] = {}

    @property
    def alike(self) -> bool:
        """Whether all models have layers of the same names."""
        stacks = [stack for stack in self._stacks if stack.stack is not None]
        inside = {
            frozenset(x for x in names if any(stack.index(x) is not None for stack in stacks))
            for names in self._names.values()
        }
        return len(inside) == 1

    @cached_property
    def whole(self) -> OverLayers:
        """All layers of the model that gives the config."""
        return OverLayers(self._tensors)

    def of(self, place: Place) -> OverLayers:
        """Return the layers that the knob at a place stands over."""
        part = self._slice(place)
        if part is None and module_of(place) is None:
            return self.whole
        key = entry_of(place) or part or place[:2]
        if key not in self._known:
            module = self._module(place)
            self._known[key] = (
                OverLayers((*module.before, *self._inside(module), *module.after), module.layers)
                if part is None
                else self._sliced(module, part, key)
            )
        return self._known[key]

    def rule_broken_by(self, knob: Knob) -> str | None:
        """Return why a knob cannot be spread where it stands, or None."""
        place = knob.place
        if self._lacks_module(place):
            return f"{knob.unit} needs a module that is there"
        part = self._slice(place)
        if part is None and self._has_slices(place):
            return f"{knob.unit} needs one number of layers; give it inside of each slice"
        if part is not None and not self._span(part, entry_of(place)).fixed:
            return f"{knob.unit} needs a slice whose layer_range are plain numbers"
        return self.of(place).rule_broken_by(knob)

    def depth(self, place: Place, tensor: str) -> float:
        """Return a tensor's place in [0, 1], as interpolation takes it for a knob at a place."""
        if self._slice(place) is not None:
            return self.of(place).depth(tensor)
        stack = next((s for s in self._stacks if s.index(tensor) is not None), None)
        return 0.0 if stack is None else OverLayers((), stack).depth(tensor)

    def placed(self, recipe: Recipe) -> dict[str, Placed]:
        """Return tensor of the result -> what goes into it, and which settings hold for it.

        Raises:
            CheckpointError: A layer that the recipe names is not there.
        """
        with_base = method(recipe.merge_method).base != "none"
        config_from = recipe.base_model or recipe.names()[0]
        stacks = layers.stacks(self._names[config_from])
        layout = lay_out(recipe, config_from, self._names, stacks, with_base=with_base)
        return {one.tensor: one for one in layout.placed}

    def check(self, problems: Problems) -> None:
        """Add a problem for modules that are not there, and layers that a slice's model lacks."""
        there = ", ".join(self._modules)
        for name in self._template.data.get("modules") or {}:
            if name not in self._modules:
                rule = f"{self._main} has no such module; it has {there}"
                problems.append((f"recipe.modules.{name}", rule))
        for place, source in self._template.sources():
            if RANGE not in source or slice_of(place) is None or self._lacks_module(place):
                continue
            span = self._span(place[:-2], place)
            if span.model not in self._names:  # its files are not here
                continue
            count = self._count(span.model, place)
            if span.end > count:
                path = reduce(join, (*place, RANGE), "recipe")
                stack = self._module(place).layers
                problems.append((path, too_few(span.model, count, stack, span.first, span.end)))

    @cached_property
    def _modules(self) -> dict[str, layers.Module]:
        found = layers.modules_of(self._tensors, layers.stacks(self._tensors))
        return {module.name: module for module in found}

    @cached_property
    def _stacks(self) -> list[layers.Layers]:
        return [module.layers for module in self._modules.values()]

    def _module(self, place: Place) -> layers.Module:
        name = module_of(place)
        return self._modules[name] if name is not None else next(iter(self._modules.values()))

    def _lacks_module(self, place: Place) -> bool:
        return module_of(place) not in (None, *self._modules)

    def _inside(self, module: layers.Module) -> list[str]:
        return [name for name in self._tensors if module.layers.index(name) is not None]

    def _slice(self, place: Place) -> Place | None:
        """Return the place of the slice whose layers a place stands over, or None.

        What stands outside of the only slice of a recipe, or of its module, stands over that.
        """
        own, name = slice_of(place), module_of(place)
        modules = self._template.data.get("modules") or {}
        if own is not None or (name is None and modules):
            return own
        at: Place = () if name is None else ("modules", name)
        slices = found_at(self._template.data, at).get("slices") or ()
        return (*at, "slices", 0) if len(slices) == 1 else None

    def _has_slices(self, place: Place) -> bool:
        name, data = module_of(place), self._template.data
        parts = data.get("modules") or {}
        if name is not None:
            return bool(parts[name].get("slices"))
        return bool(data.get("slices")) or any(part.get("slices") for part in parts.values())

    def _span(self, part: Place, entry: Place | None) -> Span:
        """Return the layers of a slice's source, the first one for what holds for all of them."""
        data = self._template.data
        at: Place = entry or (*part, "sources", 0)
        source = found_at(data, at)
        numbers = {k.place[-1]: k for k in self._template.knobs if k.place[:-1] == (*at, RANGE)}
        ends = [_ends(numbers.get(i, given)) for i, given in enumerate(source[RANGE])]
        return Span(self._template.reference(source), ends[0][0], ends[1][1], not numbers)

    def _count(self, model: str, place: Place) -> int:
        stack = self._module(place).layers.stack
        there = layers.stacks(self._names.get(model, self._tensors))
        return next((x.count for x in there if x.stack == stack), 0)

    def _sliced(self, module: layers.Module, part: Place, at: Place) -> OverLayers:
        span = self._span(part, entry_of(at))
        stack = layers.Layers(module.layers.stack, span.end - span.first)
        names = [
            name
            for name in self._names.get(span.model, self._tensors)
            if (index := stack.index(name)) is not None and span.first <= index < span.end
        ]
        slices = found_at(self._template.data, part[:-1])
        before = module.before if part[-1] == 0 else ()
        after = module.after if part[-1] == len(slices) - 1 else ()
        return OverLayers((*before, *names, *after), stack, span.first)


def _ends(given: Any) -> tuple[int, int]:
    """Return the least and the greatest number that a knob, or a number, stands for."""
    if not isinstance(given, Knob):
        return int(given), int(given)
    numbers = [int(x) for x in given.choices] or [int(given.low), int(given.high)]
    return min(numbers), max(numbers)

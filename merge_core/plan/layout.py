"""Which tensors of which parents go into each tensor of the result. No parameters, no arithmetic.

``models:`` is one slice over all layers; ``slices:`` stack layers of the parents anew; ``modules:``
do either for each part of a model. The tensors ahead of the layers come from the first slice, those
behind them from the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from merge_core.architecture.layers import Layers, Module, modules_of
from merge_core.errors import CheckpointError, ParameterError
from merge_core.plan.steps import Operand
from merge_core.recipe.schema import ModulePart, Recipe, Settings, Slice, Source


@dataclass(frozen=True)
class Placed:
    """One tensor of the result, and what goes into it."""

    tensor: str  # its name in the result
    t: float  # the place in [0, 1] for gradients: over the slice's layers, 0 outside the layers
    sources: tuple[Source, ...]  # with their own settings, in recipe order, without the base
    operands: tuple[Operand, ...]  # their tensors, one per source
    base: Operand | None  # the base's tensor, or None where the recipe has no base
    shared: tuple[Settings, ...]  # shared settings, the most specific first

    def inputs(self) -> tuple[Operand, ...]:
        """Return all that goes in: the base first, if there is one."""
        return self.operands if self.base is None else (self.base, *self.operands)


@dataclass(frozen=True)
class Layout:
    """The whole result."""

    placed: tuple[Placed, ...]
    # Stack -> for every layer of the result the parent and layer that stands for it; only for
    # stacks that ``slices:`` build.
    picked: Mapping[str, tuple[tuple[str, int], ...]]
    ranges: Mapping[tuple[str, str], Set[int]]  # (parent, stack) -> its layers that are used
    scales: Mapping[int, float]  # layer of the result -> factor on its input; of the one stack


def lay_out(
    recipe: Recipe,
    config_from: str,
    names: Mapping[str, Sequence[str]],
    stacks: Sequence[Layers],
    *,
    with_base: bool,
) -> Layout:
    """Place every tensor of the result.

    Args:
        recipe: Its documents aside.
        config_from: The parent whose names and modules count.
        stacks: Of layers in the class of ``config_from``.
        with_base: Whether the method has a base; it is no source then.
        names: Parent -> its tensors that are to be merged, in the order of its modules.

    Raises:
        CheckpointError: A layer or a module that the recipe names is not there.
        ParameterError: A base that a slice does not list has no layers of its own there.
    """
    modules = {module.name: module for module in modules_of(names[config_from], stacks)}
    builder = _Builder(recipe, config_from, names, with_base)
    for module, part in _parts(recipe, modules, config_from):
        builder.add(module, part)
    return Layout(tuple(builder.placed), builder.picked, builder.ranges, builder.scales)


def _parts(
    recipe: Recipe, modules: Mapping[str, Module], where: str
) -> Iterator[tuple[Module, ModulePart]]:
    if recipe.modules:
        given = {part.name: part for part in recipe.modules}
        for unknown in given.keys() - modules.keys():
            raise CheckpointError(
                f"modules.{unknown}: {where} has no such module; it has {', '.join(modules)}"
            )
        for missing in modules.keys() - given.keys():
            raise CheckpointError(
                f"modules.{missing}: {where} has this module and the recipe gives nothing for it"
            )
        yield from ((modules[name], part) for name, part in given.items())
    elif recipe.slices and len(modules) > 1:
        raise CheckpointError(
            f"slices: {where} has several modules ({', '.join(modules)}); "
            f"give slices or models for each under modules:"
        )
    else:
        for module in modules.values():
            yield module, ModulePart(module.name, recipe.models, recipe.slices)


class _Builder:
    def __init__(
        self,
        recipe: Recipe,
        config_from: str,
        names: Mapping[str, Sequence[str]],
        with_base: bool,
    ) -> None:
        self._recipe, self._config_from, self._names = recipe, config_from, names
        self._with_base = with_base
        self.placed: list[Placed] = []
        self.picked: dict[str, tuple[tuple[str, int], ...]] = {}
        self.ranges: dict[tuple[str, str], set[int]] = {}
        self.scales: dict[int, float] = {}
        self._by_layer: dict[tuple[str, str], dict[int, list[str]]] = {}

    def add(self, module: Module, part: ModulePart) -> None:
        stack = module.layers
        shared = (part.parameters, self._recipe.parameters)
        whole = Slice(tuple(replace(s, layer_range=(0, stack.count)) for s in part.models))
        slices = part.slices or (whole,)
        self._outside(module.before, slices[0], shared)
        picked: list[tuple[str, int]] = []
        for one in slices if stack.stack is not None else ():
            if one.input_scale != 1 and _length(one):
                self.scales[len(picked)] = one.input_scale
            for j in range(_length(one)):
                picked.append(self._layer(stack, one, j, len(picked), shared))
        self._outside(module.after, slices[-1], shared)
        if part.slices and stack.stack is not None:
            self.picked[stack.stack] = tuple(picked)

    def _outside(self, names: Sequence[str], one: Slice, shared: tuple[Settings, ...]) -> None:
        base = self._base(one)
        models = [*(source.model for source in one.sources), *([base] if base else [])]
        for name in names:
            self._place(name, 0.0, one, dict.fromkeys(models, name), shared)

    def _layer(
        self, stack: Layers, one: Slice, j: int, out: int, shared: tuple[Settings, ...]
    ) -> tuple[str, int]:
        """Place a layer; return the parent and layer whose tensors it has.

        That is the config's parent, or else the first of the slice.
        """
        t = j / (_length(one) - 1) if _length(one) > 1 else 1.0
        layers = {model: start + j for model, start in self._starts(one).items()}
        listed = [source.model for source in one.sources]
        model = self._config_from if self._config_from in listed else listed[0]
        for name in self._names_in(model, stack, layers[model]):
            tail = name.removeprefix(stack.start(layers[model]))
            inputs = {parent: stack.start(index) + tail for parent, index in layers.items()}
            self._place(stack.start(out) + tail, t, one, inputs, shared)
        for parent, index in layers.items():
            self._use(parent, stack, index)
        return model, layers[model]

    def _base(self, one: Slice) -> str | None:
        return (one.base_model or self._recipe.base_model) if self._with_base else None

    def _place(
        self,
        tensor: str,
        t: float,
        one: Slice,
        inputs: Mapping[str, str],
        shared: tuple[Settings, ...],
    ) -> None:
        base = self._base(one)
        sources = tuple(source for source in one.sources if source.model != base)
        operands = tuple(Operand(source.model, inputs[source.model]) for source in sources)
        of_base = None if base is None else Operand(base, inputs[base])
        self.placed.append(Placed(tensor, t, sources, operands, of_base, (one.parameters, *shared)))

    def _starts(self, one: Slice) -> dict[str, int]:
        """Return the first layer of every source and of the base."""
        starts = {source.model: _span(source)[0] for source in one.sources}
        base = self._base(one)
        if base is not None and base not in starts:
            if len({*starts.values()}) > 1 or base not in self._names:
                raise ParameterError(
                    f"slices: the base {base!r} is not among the sources {sorted(starts)}, which "
                    f"start at different layers; list it with its layer_range"
                )
            starts[base] = next(iter(starts.values()))
        return starts

    def _names_in(self, model: str, stack: Layers, index: int) -> list[str]:
        key = (model, str(stack.stack))
        if key not in self._by_layer:
            by_layer = self._by_layer[key] = {}
            for name in self._names[model]:
                at = stack.index(name)
                if at is not None:
                    by_layer.setdefault(at, []).append(name)
        return self._by_layer[key].get(index, [])

    def _use(self, model: str, stack: Layers, index: int) -> None:
        if not self._names_in(model, stack, index):
            count = len(self._by_layer[model, str(stack.stack)])
            said = f"has {count} layers, and the recipe asks for number {index}"
            if not count:
                said = f"has none of {self._config_from}'s layers; they must share one architecture"
            raise CheckpointError(f"{stack.stack}: {model} {said}")
        self.ranges.setdefault((model, str(stack.stack)), set()).add(index)


def _span(source: Source) -> tuple[int, int]:
    assert source.layer_range is not None
    return source.layer_range


def _length(one: Slice) -> int:
    first, last = _span(one.sources[0])
    return last - first

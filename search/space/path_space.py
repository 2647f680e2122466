"""The space of a study with layer paths: the path's numbers beside the recipe's other knobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from merge_core.architecture import layers
from merge_core.contract import Param
from merge_core.errors import Problems, join
from merge_core.parents.weight_files import TensorInfo, bytes_as
from merge_core.recipe.schema import Recipe
from merge_core.validation import Place
from search.space.dimension import Dimension
from search.space.hops import hops_of, slices
from search.space.paths import NONE, Paths
from search.space.space import Space
from search.space.units import Drawn, Number
from search.spec.ranges import Knob
from search.spec.recipe_template import Template

Infos = Mapping[str, Mapping[str, TensorInfo]]  # model -> its tensors
AT = "path"  # where a path's dimensions stand, followed by their names


@dataclass(frozen=True)
class Layers:
    """What a path needs to know of a model's layers.

    Args:
        sizes: Bytes of each in a candidate.
        shapes: Name within its layer -> shape, of all tensors of the layers.
    """

    sizes: tuple[int, ...]
    shapes: Mapping[str, frozenset[tuple[int, ...]]]


def layers_of(tensors: Mapping[str, TensorInfo], written: str | None) -> Layers:
    """Return what a path needs to know of a model's layers.

    Args:
        tensors: Of the model.
        written: The type that candidates have; None: that of their files.

    Raises:
        CheckpointError: It has several stacks of layers.
    """
    stack = layers.of(tensors)
    sizes = [0] * stack.count
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for name, info in tensors.items():
        index = stack.index(name)
        if index is None:
            continue
        sizes[index] += bytes_as(info, written)
        shapes.setdefault(name.removeprefix(stack.start(index)), set()).add(info.shape)
    return Layers(tuple(sizes), {kind: frozenset(found) for kind, found in shapes.items()})


class PathSpace(Space):
    """All dimensions of a study with layer paths. See ``Space``.

    Args:
        template: With a path.
        tensors, problems: See ``Space``.
        infos: The tensors of every parent, in the order of its modules.

    Raises:
        MergeError: See ``Space``; parents are of different widths, or do not fit the budgets.
    """

    def __init__(
        self,
        template: Template,
        tensors: Iterable[str],
        problems: Problems | None = None,
        *,
        infos: Infos,
    ) -> None:
        assert template.path is not None, "a template with a path"
        self._said, written = template.path, template.written
        self._layers = {name: layers_of(infos[name], written) for name in self._said.parents}
        sizes = {name: found.sizes for name, found in self._layers.items()}
        self._paths = Paths(self._said, sizes)
        names = {name: tuple(found) for name, found in infos.items()}
        super().__init__(template, tensors, problems, parents=names)

    def _add_structure(self, problems: Problems) -> None:
        found = self._other_shapes() or self._paths.problems()
        problems += [(join("recipe.slices.path", key), rule) for key, rule in found]
        if found:
            return
        for number in self._paths.numbers:
            place: Place = (AT, number.name)
            if number.choices:
                self._of[place] = [
                    Dimension(number.name, Knob(place, choices=number.choices), None)
                ]
                continue
            scale = self._said.input_scale
            knob = Knob(place, low=number.low, high=number.high)
            if scale is not None and number.is_scale:
                knob = replace(scale, place=place)
            drawn = Number("", knob.low, knob.high, knob.step, knob.log)
            self._of[place] = [Dimension(number.name, knob, None, drawn)]

    def _other_shapes(self) -> Problems:
        """Return a problem for each parent whose layers do not go behind those of the first."""
        entry, *others = self._said.parents
        own = self._layers[entry].shapes
        found: Problems = []
        for i, name in enumerate(others, 1):
            shapes = self._layers[name].shapes
            kinds = [kind for kind in {**own, **shapes} if own.get(kind) != shapes.get(kind)]
            if kinds:
                mine, theirs = (_shown(x.get(kinds[0])) for x in (own, shapes))
                rule = (
                    f"its layers are of another form than those of {entry}: {kinds[0]} is {theirs} "
                    f"here and {mine} there ({len(kinds)} such tensors of a layer); a path needs "
                    "parents of one width"
                )
                found.append((f"parents[{i}]", rule))
        return found

    @cached_property
    def deciding(self) -> tuple[str, ...]:
        """See ``Space``; also the hops that have factors."""
        own = {n.hangs_on for n in self._paths.numbers if n.hangs_on is not None}
        of_path = [d.name for d in self.dimensions if d.name in own]
        return (*super().deciding, *of_path)

    def used(self, drawn: Mapping[str, Drawn]) -> list[Place]:
        """See ``Space``; the factor of a hop that is left out changes nothing."""
        owners = {n.name: n.hangs_on for n in self._paths.numbers if n.hangs_on is not None}
        off = {name for name, owner in owners.items() if drawn[owner] in (NONE, False)}
        return [place for place in super().used(drawn) if place[-1] not in off]

    def mended(self, drawn: Mapping[str, Drawn]) -> Mapping[str, Drawn]:
        """Return the values that some count as, where several stand for one candidate."""
        return {**drawn, **self._paths.mended(drawn)}

    def point(self, level: Callable[[Knob, Param | None], Drawn]) -> dict[str, Drawn]:
        """See ``Space``; the path is the entry model's own."""
        return {**super().point(level), **self._paths.own(self._said.parents[0])}

    def through(self, point: Mapping[str, Drawn]) -> dict[str, dict[str, Drawn]]:
        """Return a point with the path through each other parent's layers, by that one's name."""
        found = {}
        for name in self._said.parents[1:]:
            found[self._paths.called[name]] = {**point, **self._paths.own(name)}
        return found

    @property
    def entry(self) -> str:
        """The entry model."""
        return self._said.parents[0]

    @cached_property
    def cut_sizes(self) -> tuple[int, ...]:
        """Sizes of the blocks of layers that a search begins without, one each.

        1, 2, 4, ... layers, at most half of those that may be left out.
        """
        inner, count = len(self._paths.inner(self.entry)), len(self._layers[self.entry].sizes)
        most = min(max(inner // 2, min(inner, 1)), count - self._said.min_layers)
        return tuple(2**i for i in range(most.bit_length()) if most > 0)

    def blocks(self, size: int) -> range:
        """Return the first layers of the entry model's blocks that may be left out."""
        inner = self._paths.inner(self.entry)
        return range(inner.start, inner.stop - size + 1)

    def without(self, point: Mapping[str, Drawn], first: int, size: int) -> dict[str, Drawn]:
        """Return a point with the entry model's own path, but for a block of its layers."""
        return {**point, **self._paths.without(first, size)}

    def path_of(self, recipe: Recipe) -> dict[str, Drawn]:
        """Return the values of a recipe's path.

        Raises:
            MergeError: It has none, or one that the study cannot say.
        """
        return dict(self._paths.drawn(hops_of(recipe)))

    def _values(self, drawn: Mapping[str, Drawn]) -> dict[Place, Any]:
        values = super()._values(drawn)
        of_path = {str(place[1]): x for place, x in values.items() if place[0] == AT}
        rest = {place: x for place, x in values.items() if place[0] != AT}
        return {**rest, ("slices",): slices(self._paths.hops(of_path))}


def cut_sizes(space: Space) -> tuple[int, ...]:
    """Return sizes of the blocks of layers that a search begins without; none for other spaces."""
    return space.cut_sizes if isinstance(space, PathSpace) else ()


def _shown(shapes: frozenset[tuple[int, ...]] | None) -> str:
    return " or ".join(str(list(shape)) for shape in sorted(shapes or ())) or "not there"

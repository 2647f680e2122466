"""Layer paths <-> numbers that a sampler draws.

A path is a row of hops. What is drawn may break a budget; it is mended, always in the same way, so
every point is a path: a hop is left out where its layer was there ``repeats`` times already, where
the path has ``max_layers``, or where its layer, if it is not in the path yet, would bring the bytes
above ``max_bytes``. ``hops`` and ``flags`` keep the earlier ones, ``signs`` those with the largest
numbers. A path with fewer than ``min_layers`` gets the first layers, parent after parent, that may
still come: ``hops`` at the end, before the entry model's last layers, ``flags`` in their places;
``signs`` gets those with the largest numbers. What is added so has the factor that hops start with.

With ``signs`` and ``flags`` the layers of all parents stand in a row, ``repeats`` times over, and a
path has them in that order; the entry model's kept layers have no place in the first row (its first
ones) and in the last (its last ones).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from merge_core.errors import MergeError, Problems
from search.space.hops import Hop, Layer, shown
from search.space.names import short
from search.spec.layer_path import LayerPath

NONE = "none"  # in place of a layer: the hop is left out
IN, OUT = 0.4, -0.4  # signs where a search starts: 2 first deviations of CMA-ES from 0


class Number(NamedTuple):
    """What is drawn under a name: one of the choices, or, without any, a number of a range."""

    name: str
    choices: tuple[bool | str, ...] = ()
    low: float = -1.0
    high: float = 1.0
    hangs_on: str | None = None  # a scale's hop or flag: without it the scale changes nothing
    is_scale: bool = False


@dataclass(frozen=True)
class Paths:
    """The paths of a study.

    Args:
        said: What the study file says.
        sizes: Parent -> bytes of each of its layers, in order.
    """

    said: LayerPath
    sizes: Mapping[str, Sequence[int]]

    def problems(self) -> Problems:
        """Return key (inside ``path``) and rule of what does not fit the parents."""
        said, entry = self.said, self.said.parents[0]
        count, kept = len(self.sizes[entry]), said.keep_first + said.keep_last
        found: Problems = []
        if kept > count:
            rule = f"with keep_last they are {kept}, and the entry model {entry} has {count} layers"
            return [("keep_first", rule)]
        if self.most - kept < 1:
            rule = f"nothing is left between the {kept} kept layers; raise it, or keep fewer"
            found.append(("max_layers", rule))
        if said.min_layers > self.most:
            rule = f"expected at most {self.most}, which a path can have, got {said.min_layers}"
            found.append(("min_layers", rule))
        least = max(said.min_layers, kept) * max(
            (x for sizes in self.sizes.values() for x in sizes), default=0
        )
        if said.max_bytes is not None and least > said.max_bytes:
            rule = (
                f"{max(said.min_layers, kept)} layers, the fewest of a path, take up to {least} "
                f"bytes, got {said.max_bytes}"
            )
            found.append(("max_bytes", rule))
        return found

    @cached_property
    def most(self) -> int:
        """How many layers a path may have."""
        wanted = self.said.max_layers or len(self.sizes[self.said.parents[0]])
        return min(wanted, self.said.repeats * sum(map(len, self.sizes.values())))

    @cached_property
    def first(self) -> tuple[Layer, ...]:
        """The entry model's layers that begin every path."""
        return tuple((self.said.parents[0], i) for i in range(self.said.keep_first))

    @cached_property
    def last(self) -> tuple[Layer, ...]:
        """The entry model's layers that end every path."""
        entry = self.said.parents[0]
        count = len(self.sizes[entry])
        return tuple((entry, i) for i in range(count - self.said.keep_last, count))

    @cached_property
    def row(self) -> tuple[tuple[int, Layer], ...]:
        """Repeat, from 1, and layer of everything that may stand between, in order."""
        repeats = self.said.repeats
        out = {(1, layer) for layer in self.first} | {(repeats, layer) for layer in self.last}
        layers = [(model, i) for model in self.said.parents for i in range(len(self.sizes[model]))]
        there = [(copy, layer) for copy in range(1, repeats + 1) for layer in layers]
        return tuple(one for one in there if one not in out)

    @cached_property
    def called(self) -> dict[str, str]:
        """Parent -> how it is called: by its last name if no other has that."""
        last = {name: short(name) for name in self.said.parents}
        twice = {name for name, count in Counter(last.values()).items() if count > 1}
        return {name: name if own in twice else own for name, own in last.items()}

    @cached_property
    def labels(self) -> dict[Layer, str]:
        """Layer -> how it is called: ``model:7``."""
        layers = dict.fromkeys(layer for _, layer in self.row)
        return {(model, i): f"{self.called[model]}:{i}" for model, i in layers}

    @cached_property
    def _layers(self) -> dict[str, Layer]:
        return {label: layer for layer, label in self.labels.items()}

    @cached_property
    def numbers(self) -> tuple[Number, ...]:
        """All that is drawn."""
        keys = self._keys
        choices: tuple[bool | str, ...] = (False, True)
        if self.said.encoding == "hops":
            choices = (NONE, *self.labels.values())
        if self.said.encoding == "signs":
            choices = ()
        places = [Number(f"path/{key}", choices) for key in keys]
        knob = self.said.input_scale
        if knob is None:
            return tuple(places)
        scales = [
            Number(_scale(key), (), knob.low, knob.high, place.name if choices else None, True)
            for key, place in zip(keys, places, strict=True)
        ]
        scales.append(Number(_scale("exit"), (), knob.low, knob.high, None, True))
        return (*places, *scales)

    @cached_property
    def _keys(self) -> list[str]:
        """What tells the places between the kept layers from each other."""
        if self.said.encoding == "hops":
            count = self.most - len(self.first) - len(self.last)
            return [f"hop {i:0{len(str(count))}d}" for i in range(1, count + 1)]
        return [f"{copy}/{self.labels[layer]}" for copy, layer in self.row]

    def hops(self, drawn: Mapping[str, Any]) -> tuple[Hop, ...]:
        """Return the path that drawn values stand for, mended where it breaks a budget.

        Args:
            drawn: A value for every name of ``numbers``; scales that change nothing may be missing.
        """
        found = self._between([drawn[f"path/{key}"] for key in self._keys])
        if self.said.input_scale is None:
            return tuple(Hop(*of) for of in (*self.first, *(of for of, _ in found), *self.last))
        names = [None if i is None else _scale(self._keys[i]) for _, i in found]
        scales = [self._usual if name is None else float(drawn[name]) for name in names]
        between = [Hop(*of, scale) for (of, _), scale in zip(found, scales, strict=True)]
        exits = [float(drawn[_scale("exit")]), *[1.0] * (len(self.last) - 1)]
        last = [Hop(*of, scale) for of, scale in zip(self.last, exits, strict=True)]
        return (*(Hop(*of) for of in self.first), *between, *last)

    def mended(self, drawn: Mapping[str, Any]) -> dict[str, bool | float | str]:
        """Return the values that some count as: those of the path that they stand for.

        Signs stay as they are: how far a number is from 0 says how likely it turns.
        """
        if self.said.encoding == "signs":
            return dict(drawn)
        _, between, last = self._parts(self.hops(drawn))
        return self._said(between, last[0].scale)

    def _between(self, values: Sequence[Any]) -> list[tuple[Layer, int | None]]:
        """Return the layers between the kept ones, with the place of each; None where added."""
        fits = _Fits(self)
        if self.said.encoding == "hops":
            places = [(self._layers[value], i) for i, value in enumerate(values) if value != NONE]
            path: list[tuple[Layer, int | None]] = [x for x in places if fits.add(x[0])]
            return path + [(layer, None) for _, layer in self.row if fits.fill(layer)]
        if self.said.encoding == "signs":
            order = sorted(range(len(values)), key=lambda i: (-values[i], i))
            wanted = [i for i in order if values[i] > 0]
        else:
            order = list(range(len(values)))
            wanted = [i for i in order if values[i]]
        kept: dict[int, int | None] = {i: i for i in wanted if fits.add(self.row[i][1])}
        signs = self.said.encoding == "signs"  # all have a number
        added = [i for i in order if i not in kept and fits.fill(self.row[i][1])]
        found = {**kept, **{i: i if signs else None for i in added}}
        return [(self.row[i][1], found[i]) for i in sorted(found)]

    def drawn(self, hops: Sequence[Hop]) -> dict[str, bool | float | str]:
        """Return the values that stand for a path.

        Raises:
            MergeError: The study cannot say that path.
        """
        first, between, last = self._parts(hops)
        found = self._said(between, last[0].scale)
        self._same(self.hops(found), [*first, *between, *last])
        return found

    def own(self, parent: str) -> dict[str, bool | float | str]:
        """Return the values of a parent's own layers between the kept ones of the entry model.

        So of the entry model that is the model itself. Of a parent that is too deep for the budgets
        the first layers are taken.
        """
        return self._through(parent, self.inner(parent))

    def without(self, first: int, size: int) -> dict[str, bool | float | str]:
        """Return the values of the entry model's own path without a block of its layers."""
        entry = self.said.parents[0]
        left = [i for i in self.inner(entry) if not first <= i < first + size]
        return self._through(entry, left)

    def inner(self, parent: str) -> range:
        """Return a parent's layers between as many as are kept of the entry model."""
        return range(self.said.keep_first, len(self.sizes[parent]) - self.said.keep_last)

    def _through(self, parent: str, layers: Iterable[int]) -> dict[str, bool | float | str]:
        fits = _Fits(self)
        between = [Hop(parent, i, self._usual) for i in layers if fits.add((parent, i))]
        return self._said(between, self._usual)

    def _said(self, between: Sequence[Hop], exit_scale: float) -> dict[str, bool | float | str]:
        """Return the values for what stands between the kept layers, as far as there are places."""
        places = self._places([hop.of for hop in between])
        there: dict[int, Hop] = {i: between[at] for i, at in places.items()}
        found: dict[str, bool | float | str] = {}
        for i, key in enumerate(self._keys):
            hop = there.get(i)
            if self.said.encoding == "hops":
                found[f"path/{key}"] = self.labels.get(hop.of, NONE) if hop else NONE
            else:
                signs = self.said.encoding == "signs"
                found[f"path/{key}"] = (IN if hop else OUT) if signs else hop is not None
        if self.said.input_scale is not None:
            scales = {_scale(key): there.get(i) for i, key in enumerate(self._keys)}
            found |= {name: hop.scale if hop else self._usual for name, hop in scales.items()}
            found[_scale("exit")] = exit_scale
        return found

    @cached_property
    def _usual(self) -> float:
        """The factor that hops start with."""
        knob = self.said.input_scale
        if knob is None:
            return 1.0
        return knob.snapped(1.0 if knob.start is None else float(knob.start))

    def _parts(self, hops: Sequence[Hop]) -> tuple[list[Hop], list[Hop], list[Hop]]:
        a, b = len(self.first), len(hops) - len(self.last)
        for there, wanted, what in (
            (hops[:a], self.first, "begins with the first"),
            (hops[max(a, b) :], self.last, "ends with the last"),
        ):
            if tuple(hop.of for hop in there) != wanted:
                raise MergeError(
                    f"every path {what} {len(wanted)} layers of the entry model "
                    f"{self.said.parents[0]}, this recipe has {shown(there)} there"
                )
        return list(hops[:a]), list(hops[a:b]), list(hops[b:])

    def _places(self, layers: Sequence[Layer]) -> dict[int, int]:
        """Return place -> position in the path; what has no place is left to the comparison."""
        if self.said.encoding == "hops":
            return {i: i for i in range(min(len(layers), len(self._keys)))}
        found: dict[int, int] = {}
        at = 0
        for i, (_, layer) in enumerate(self.row):
            if at < len(layers) and layers[at] == layer:
                found[i], at = at, at + 1
        return found

    def _same(self, made: Sequence[Hop], wanted: Sequence[Hop]) -> None:
        """Refuse a path that is another one once it is said in the study's numbers."""
        if (a := [hop.of for hop in made]) != [hop.of for hop in wanted]:
            raise MergeError(
                f"the nearest path that the study can say has {len(a)} layers, "
                f"{shown(made)}; this recipe has {shown(wanted)}: look at max_layers, max_bytes, "
                "repeats, and with signs or flags at the order"
            )
        for mine, other in zip(made, wanted, strict=True):
            if abs(mine.scale - other.scale) > 1e-9:
                raise MergeError(
                    f"input_scale {other.scale:g} before {other.model}:"
                    f"{other.layer}, where the study has {mine.scale:g}"
                )


class _Fits:
    """What a path has so far, and what it may still have."""

    def __init__(self, paths: Paths) -> None:
        said = paths.said
        self._sizes, self._repeats = paths.sizes, said.repeats
        self._most, self._least = paths.most, said.min_layers
        self._bytes = said.max_bytes
        self._there = Counter([*paths.first, *paths.last])
        self._count = len(paths.first) + len(paths.last)
        self._held = sum(self._size(layer) for layer in self._there)

    def add(self, layer: Layer) -> bool:
        """Add a layer where that breaks no budget, and return whether it did."""
        more = 0 if self._there[layer] else self._size(layer)
        fits = self._there[layer] < self._repeats and self._count < self._most
        if fits and (self._bytes is None or self._held + more <= self._bytes):
            self._there[layer] += 1
            self._count += 1
            self._held += more
            return True
        return False

    def fill(self, layer: Layer) -> bool:
        """Add a layer where there are too few."""
        return self._count < self._least and self.add(layer)

    def _size(self, layer: Layer) -> int:
        return self._sizes[layer[0]][layer[1]]


def _scale(key: str) -> str:
    """Return the name of the factor of a hop or a place in the row."""
    return f"path/scale {key.removeprefix('hop ')}"

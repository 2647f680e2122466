"""The recipe section of a study file: a recipe with knobs in it, checked at both ends of each."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import inf
from typing import Any

from merge_core.contract import Method
from merge_core.errors import Problems, join
from merge_core.methods.registry import METHODS, method
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.read_fields import Node
from merge_core.validation import Place
from search.spec import layer_path, mixture_knobs, ranges
from search.spec.entries import bases, entries, entry_of, found_at, parts
from search.spec.knob_places import (
    METHOD,
    SEED,
    check_together,
    is_bare,
    is_whole,
    knobs,
    takes_part,
)
from search.spec.mixture_knobs import DENSE, EXPERTS, MOE, TAKE_PART
from search.spec.ranges import Knob

_TOKENIZER = (
    "candidates have the tokenizer of the base (or first model): omit this where all models number "
    "their tokens alike (a run says where they do not); else merge each with it to a folder first"
)
NOT_SEARCHED = {
    "documents": "a study has one document; merge the others to a folder and name that",
    "tokenizer": _TOKENIZER,
    "tokenizer_source": _TOKENIZER,
}
_POSITION = re.compile(r"(?<=models\[)\d+")


class Cases(list[dict[str, Any]]):
    """Entries ``{filter, value}`` that stand in place of the one that a knob is the value of."""


@dataclass(frozen=True)
class Template:
    """A recipe with knobs.

    Args:
        data: The section as read, knobs included.
        knobs: Every knob, in the order of the file.
        notices: Key path from the recipe on, and rule, of what is said in vain.
        path: What is said of layer paths, or None; ``data`` has slices in its place then, the first
            layer of each parent.
    """

    data: Mapping[str, Any]
    knobs: tuple[Knob, ...]
    notices: tuple[tuple[str, str], ...] = ()
    path: layer_path.LayerPath | None = None

    def filled(self, values: Mapping[Place, Any]) -> dict[str, Any]:
        """Return the plain data of the recipe that has ``values`` at the places of its knobs.

        A value may be :class:`Cases`. Models that do not take part are left out, and where the
        method is one of the choices, what only the others have use for: their parameters, the seed
        of masks, and the base for a method that has none. Their knobs need no values.
        """
        data = copy.deepcopy(dict(self.data))
        for place, value in values.items():
            owner: Any = data
            for key in place[:-1]:
                owner = owner[key]
            owner[place[-1]] = value
        for place in [place for place, value in values.items() if isinstance(value, Cases)]:
            _put_in_place(data, place[: place.index("parameters") + 2])
        chosen = _known(data.get("merge_method"))
        if any(knob.place[::2] == ("models", TAKE_PART) for knob in self.knobs):
            takes = takes_part(self.data, chosen, values) if chosen else {}
            kept = [x for i, x in enumerate(data["models"]) if takes.get(i, True)]
            data["models"] = [_without(x, TAKE_PART) for x in kept]
        if chosen and METHOD in values:
            _leave_out(data, chosen, self.methods())
        if isinstance(data.get(MOE), dict) and isinstance(data[MOE].get(EXPERTS), list):
            mixture_knobs.fill_in(data, self.data, values)
        return data

    def used(self, place: Place, values: Mapping[Place, Any]) -> bool:
        """Return whether a knob changes anything.

        Args:
            place: Of the knob.
            values: The values at the places of what decides, if chosen; see ``decides``.
        """
        if place[0] == MOE:
            return mixture_knobs.used(self.data, place, values)
        chosen = method(values.get(METHOD, self.data["merge_method"]))
        if place == SEED:
            return chosen.draws or mixture_knobs.draws(self.data)
        if "parameters" not in place:
            return True
        if chosen.param(str(place[place.index("parameters") + 1])) is None:
            return False
        return place[0] != "models" or takes_part(self.data, chosen, values)[int(place[1])]

    def methods(self) -> tuple[Method, ...]:
        """Return the method, or all that the study chooses from."""
        named = self.data["merge_method"]
        names = named["choices"] if ranges.is_knob(named) else [named]
        return tuple(method(name) for name in names)

    @property
    def chooses(self) -> bool:
        """Whether something is drawn from choices, not from a range."""
        hops = self.path is not None and self.path.encoding != "signs"
        return hops or any(knob.choices for knob in self.knobs)

    @property
    def written(self) -> str | None:
        """The type that candidates have, by torch's name without ``torch.``; None: their files'."""
        dtype = self.data.get("out_dtype") or self.data.get("dtype")
        return dtype.removeprefix("torch.") if isinstance(dtype, str) else None

    @property
    def plain(self) -> bool:
        """Whether the recipe lists `models:`, each over all layers."""
        return bool(self.data.get("models"))

    def sources(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        """Yield every entry that names a model, after its place."""
        yield from entries(self.data)

    def model_at(self, place: Place) -> str | None:
        """Return the reference of the model whose entry a place is in, or None outside of them."""
        at = entry_of(place)
        return None if at is None else self.reference(found_at(self.data, at))

    def reference(self, source: Mapping[str, Any]) -> str:
        """Return the reference of a model's entry."""
        return _reference(source["model"])

    def references(self) -> tuple[str, ...]:
        """Return every model that the recipe names once, bases included."""
        named = [*(source["model"] for _, source in self.sources()), *bases(self.data)]
        return tuple(dict.fromkeys((*(_reference(data) for data in named), *self.experts())))

    def experts(self) -> tuple[str, ...]:
        """Return every model that gives experts once; none: the recipe is no mixture."""
        moe = self.data.get(MOE) or {}
        entries = [*moe.get(EXPERTS, ()), *(moe.get("shared_experts") or ())]
        return tuple(dict.fromkeys(map(self.expert, entries)))

    def expert(self, entry: Mapping[str, Any]) -> str:
        """Return the reference of an expert's entry."""
        return _reference(entry["source_model"])

    @property
    def trained(self) -> bool:
        """Whether candidates may have routers that are trained."""
        return mixture_knobs.TRAINED in mixture_knobs.modes(self.data) and not (
            self.data[MOE].get("gates")
        )

    def base(self) -> str | None:
        """Return the base model, if the recipe names one."""
        base = self.data.get("base_model")
        return _reference(base) if base else None

    def base_or_first(self) -> str:
        """Return the model that config and tokenizer come from."""
        return self.base() or self.references()[0]


def parse(data: Any, path: str, problems: Problems) -> Template | None:
    """Read a recipe with knobs; add what is wrong to ``problems``.

    Every knob is checked at both ends, or at every choice, by the rules for plain recipes; a knob
    that is wrong itself hides nothing else.
    """
    if not isinstance(data, dict):
        recipe_reader.parse(data, path, problems)
        return None
    if given := [(join(path, key), rule) for key, rule in NOT_SEARCHED.items() if data.get(key)]:
        problems.extend(given)
        return None
    found: Problems = []
    mixture_knobs.check_mixture(data, path, found)
    data = mixture_knobs.long_form(data)
    route = None
    if layer_path.is_path(data.get("slices")):
        route = layer_path.of_recipe(data, path, found)
        data = layer_path.stand_in(data, route)
    read = list(knobs(Node(data, path, found)))
    bad = tuple(where for where, knob in read if knob is None)
    good = tuple(knob for _, knob in read if knob is not None)
    check_together(data, good, path, found)
    template = Template(data, good, path=route)
    idle: dict[str, str] = {}
    for values in _corners(template):
        broken: Problems = []
        notices: Problems = []
        filled = template.filled(values)
        recipe_reader.parse(filled, path, broken, notices)
        placed = [(_in_file(where, data, filled), rule) for where, rule in broken]
        found.extend((where, rule) for where, rule in placed if not where.startswith(bad))
        idle |= {_in_file(where, data, filled): rule for where, rule in notices}
    found.extend(_idle_knobs(good, path, idle))
    problems.extend(dict.fromkeys(found))
    inside = [(where.removeprefix(path).removeprefix("."), rule) for where, rule in idle.items()]
    return None if found else replace(template, notices=tuple(inside))


def _idle_knobs(knobs: Sequence[Knob], path: str, idle: Mapping[str, str]) -> Problems:
    """Return a problem for every knob that stands where nothing changes anything."""
    places = [reduce(join, knob.place, path) for knob in knobs if knob.place[0] != MOE]
    return [
        (place, f"{rule}; there is nothing to search")
        for place in places
        for where, rule in idle.items()
        if place == where or place.startswith((f"{where}.", f"{where}["))
    ]


def _corners(template: Template) -> Iterator[dict[Place, Any]]:
    """Yield fillings that together put every knob at both ends, under every method."""
    options = {k.place: _ends(k) for k in template.knobs}
    methods = options.pop(METHOD, [None])
    for name in methods:
        chosen: dict[Place, Any] = {} if name is None else {METHOD: name}
        for i in range(max([len(v) for v in options.values()], default=1)):
            yield {
                **chosen,
                **{
                    place: v[min(i, len(v) - 1)] if place[-1] != TAKE_PART else True
                    for place, v in options.items()
                },
            }


def _ends(knob: Knob) -> list[Any]:
    """Return both ends; and what lies between them where they could be a flag's two values.

    Of choices all of them.
    """
    if knob.place == DENSE:
        return [[], [0]]
    if knob.choices:
        return list(knob.choices)
    if is_whole(knob.place):
        return [int(knob.low), int(knob.high)]
    if knob.sum is not None:
        return [knob.sum / 1000, knob.sum * 0.999]  # no share is none of it, or all
    return [knob.low, knob.high, *([0.5] if (knob.low, knob.high) == (0, 1) else [])]


def _leave_out(data: dict[str, Any], chosen: Method, others: tuple[Method, ...]) -> None:
    if not chosen.draws and any(one.draws for one in others):
        data.pop("seed", None)
    useless = {p.name for m in others for p in m.params} - {p.name for p in chosen.params}
    base = data.get("base_model")
    if chosen.base == "none" and base is not None and "models" in data:
        del data["base_model"]
        data["models"] = [s for s in _sources(data) if not is_bare(s, base)]
    for _, owner in (*parts(data), *entries(data)):
        given = owner.get("parameters")
        if isinstance(given, dict) and isinstance(owner, dict):
            owner["parameters"] = {k: v for k, v in given.items() if k not in useless}


def _put_in_place(data: Any, place: Place) -> None:
    """Replace the entries of the setting at a place whose value are entries by these."""
    owner = found_at(data, place[:-1])
    setting = owner[place[-1]]
    cases = setting if isinstance(setting, list) else [setting]
    if isinstance(setting, Cases):
        cases = [{"value": setting}]
    inner = [c["value"] if isinstance(c["value"], Cases) else [c] for c in cases]
    owner[place[-1]] = [case for several in inner for case in several]


def _known(name: Any) -> Method | None:
    return method(name) if isinstance(name, str) and name in METHODS.names() else None


def _without(source: Any, key: str) -> Any:
    return {k: x for k, x in source.items() if k != key} if isinstance(source, dict) else source


def _reference(data: Any) -> str:
    """Return a reference as text; it has been checked."""
    return str(Node(data, "", []).model())


def _sources(data: Mapping[str, Any]) -> list[Any]:
    given = data.get("models")
    return given if isinstance(given, list) else []


def _in_file(where: str, data: dict[str, Any], filled: dict[str, Any]) -> str:
    """Return the file's key path for one of ``filled``, which may have left the base out."""
    if ("base_model" in data) == ("base_model" in filled):
        return where
    bare = [i for i, s in enumerate(_sources(data)) if is_bare(s, data.get("base_model"))]
    return _POSITION.sub(lambda m: str(int(m[0]) + (int(m[0]) >= min(bare, default=inf))), where, 1)

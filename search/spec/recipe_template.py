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
from merge_core.errors import Problems, hint, join, shown
from merge_core.methods.registry import METHODS, method
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.read_fields import Node
from merge_core.validation import Place
from search.spec import ranges
from search.spec.ranges import Knob

NOT_SEARCHED = ("slices", "modules", "documents", "tokenizer", "tokenizer_source")
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
    """

    data: Mapping[str, Any]
    knobs: tuple[Knob, ...]
    notices: tuple[tuple[str, str], ...] = ()

    def filled(self, values: Mapping[Place, Any]) -> dict[str, Any]:
        """Return the plain data of the recipe that has ``values`` at the places of its knobs.

        A value may be :class:`Cases`. Where the method is one of the choices, what only the others
        have use for is left out: their parameters, and the base for a method that has none.
        """
        data = copy.deepcopy(dict(self.data))
        for place, value in values.items():
            owner: Any = data
            for key in place[:-1]:
                owner = owner[key]
            owner[place[-1]] = value
        for place in [place for place, value in values.items() if isinstance(value, Cases)]:
            _put_in_place(data, place[: place.index("parameters") + 2])
        if ("merge_method",) in values:
            _leave_out(data, method(data["merge_method"]), self.methods())
        return data

    def methods(self) -> tuple[Method, ...]:
        """Return the method, or all that the study chooses from."""
        named = self.data["merge_method"]
        names = named["choices"] if ranges.is_knob(named) else [named]
        return tuple(method(name) for name in names)

    def references(self) -> tuple[str, ...]:
        """Return every model that the recipe names, the base included."""
        named = [*(source["model"] for source in self.data["models"]), self.data.get("base_model")]
        return tuple(dict.fromkeys(_reference(data) for data in named if data))

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
    rule = "a study searches plain `models:` recipes; merge this to a folder and name that"
    if given := [(join(path, key), rule) for key in NOT_SEARCHED if data.get(key)]:
        problems.extend(given)
        return None
    found: Problems = []
    read = list(_knobs(Node(data, path, found), ()))
    bad = tuple(where for where, knob in read if knob is None)
    good = tuple(knob for _, knob in read if knob is not None)
    template = Template(data, good)
    idle: dict[str, str] = {}
    for values in _corners(template):
        broken: Problems = []
        notices: Problems = []
        filled = template.filled(values)
        recipe_reader.parse(filled, path, broken, notices)
        fair = [(where, rule) for where, rule in broken if not where.startswith(bad)]
        found.extend((_in_file(where, data, filled), rule) for where, rule in fair)
        idle |= {_in_file(where, data, filled): rule for where, rule in notices}
    found.extend(_idle_knobs(good, path, idle))
    problems.extend(dict.fromkeys(found))
    inside = [(where.removeprefix(path).removeprefix("."), rule) for where, rule in idle.items()]
    return None if found else replace(template, notices=tuple(inside))


def _idle_knobs(knobs: Sequence[Knob], path: str, idle: Mapping[str, str]) -> Problems:
    """Return a problem for every knob that stands where nothing changes anything."""
    places = [reduce(join, knob.place, path) for knob in knobs]
    return [
        (place, f"{rule}; there is nothing to search")
        for place in places
        for where, rule in idle.items()
        if place == where or place.startswith((f"{where}.", f"{where}["))
    ]


def _knobs(node: Node, place: Place) -> Iterator[tuple[str, Knob | None]]:
    """Yield every knob after the path that its problems stand at; None where it has some."""
    if not ranges.is_knob(node.data):
        members = range(len(node.data)) if isinstance(node.data, list) else node.data
        for key in members if isinstance(node.data, dict | list) else ():
            yield from _knobs(node.at(key), (*place, key))
        return
    before = len(node.problems)
    knob = ranges.parse(node.data, place, node.path, node.problems)
    _check_place(place, node)
    # one bad entry of a gradient spoils the whole list
    path = node.path.removesuffix(f"[{place[-1]}]" if place else "")
    yield path, knob if len(node.problems) == before else None


def _check_place(place: Place, node: Node) -> None:
    if place == ("merge_method",):
        _check_methods(node)
    elif "parameters" not in place[:-1] or place[-1] == "filter":
        node.refuse("ranges and choices go in parameters and merge_method only")
    elif isinstance(place[-1], int) and (
        given := [key for key in ranges.UNITS if key in node.data]
    ):
        node.refuse(f"{' and '.join(given)} cannot stand inside a list")


def _check_methods(node: Node) -> None:
    names, known = node.data.get("choices"), METHODS.names()
    if names is None:
        node.refuse("expected a method or choices, got a range")
    for name in names if isinstance(names, list) else ():
        if name not in known:
            node.refuse(f"no merge method {shown(name)}{hint(str(name), known)}")


def _corners(template: Template) -> Iterator[dict[Place, Any]]:
    """Yield fillings that together put every knob at both ends, under every method."""
    options = {k.place: list(k.choices) or _ends(k) for k in template.knobs}
    methods = options.pop(("merge_method",), [None])
    for name in methods:
        chosen: dict[Place, Any] = {} if name is None else {("merge_method",): name}
        for i in range(max([len(v) for v in options.values()], default=1)):
            yield {**chosen, **{place: v[min(i, len(v) - 1)] for place, v in options.items()}}


def _ends(knob: Knob) -> list[float]:
    """Return both ends; and what lies between them where they could be a flag's two values."""
    return [knob.low, knob.high, *([0.5] if (knob.low, knob.high) == (0, 1) else [])]


def _leave_out(data: dict[str, Any], chosen: Method, others: tuple[Method, ...]) -> None:
    useless = {p.name for m in others for p in m.params} - {p.name for p in chosen.params}
    base = data.get("base_model")
    if chosen.base == "none" and base is not None:
        del data["base_model"]
        data["models"] = [s for s in _sources(data) if not _is_bare(s, base)]
    for owner in (data, *_sources(data)):
        given = owner.get("parameters") if isinstance(owner, dict) else None
        if isinstance(given, dict):
            owner["parameters"] = {k: v for k, v in given.items() if k not in useless}


def _put_in_place(data: Any, place: Place) -> None:
    """Replace the entries of the setting at a place whose value are entries by these."""
    owner = reduce(lambda x, key: x[key], place[:-1], data)
    setting = owner[place[-1]]
    cases = setting if isinstance(setting, list) else [setting]
    if isinstance(setting, Cases):
        cases = [{"value": setting}]
    inner = [c["value"] if isinstance(c["value"], Cases) else [c] for c in cases]
    owner[place[-1]] = [case for several in inner for case in several]


def _reference(data: Any) -> str:
    """Return a reference as text; it has been checked."""
    return str(Node(data, "", []).model())


def _sources(data: Mapping[str, Any]) -> list[Any]:
    given = data.get("models")
    return given if isinstance(given, list) else []


def _is_bare(source: Any, base: Any) -> bool:
    """Return whether an entry only lists the base, as task-vector recipes do."""
    return isinstance(source, dict) and source.get("model") == base and not source.get("parameters")


def _in_file(where: str, data: dict[str, Any], filled: dict[str, Any]) -> str:
    """Return the file's key path for one of ``filled``, which may have left the base out."""
    if ("base_model" in data) == ("base_model" in filled):
        return where
    bare = [i for i, s in enumerate(_sources(data)) if _is_bare(s, data.get("base_model"))]
    return _POSITION.sub(lambda m: str(int(m[0]) + (int(m[0]) >= min(bare, default=inf))), where, 1)

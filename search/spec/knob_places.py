"""Where knobs stand in a recipe, and what those at several places have to do with each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from merge_core.contract import Method, Param
from merge_core.errors import Problems, hint, join, shown
from merge_core.methods.registry import METHODS, method
from merge_core.recipe.read_fields import Node
from merge_core.validation import Place
from search.spec import mixture_knobs, ranges
from search.spec.entries import entry_of, found_at, slice_of
from search.spec.layer_ranges import RANGE, check_ranges
from search.spec.mixture_knobs import MOE, PER_TOKEN, TAKE_PART
from search.spec.ranges import Declared, Knob

METHOD, SEED = ("merge_method",), ("seed",)
ELSEWHERE = (
    "ranges and choices go in parameters, merge_method, seed, a model's take_part and a slice's "
    "layer_range only"
)
WIDE = 100  # a declared range of so many times its low end is searched on a logarithmic scale


def knobs(node: Node) -> Iterator[tuple[str, Knob | None]]:
    """Yield every knob of a recipe after the path that its problems stand at; None: it has some."""
    yield from _inside(node, (), _methods(node.data))


def _inside(
    node: Node, place: Place, methods: Sequence[Method]
) -> Iterator[tuple[str, Knob | None]]:
    parameter = "parameters" in place[:-1]
    if mixture_knobs.is_dense(place, node.data):
        yield node.path, mixture_knobs.dense_knob(node)
        return
    if not ranges.is_knob(node.data, parameter=parameter) and place[-1:] != (TAKE_PART,):
        members = range(len(node.data)) if isinstance(node.data, list) else node.data
        for key in members if isinstance(node.data, dict | list) else ():
            yield from _inside(node.at(key), (*place, key), methods)
        return
    before = len(node.problems)
    if place[-1:] == (TAKE_PART,) and not ranges.is_knob(node.data):
        node.expected("{choices: [true, false]}")
        yield node.path, None
        return
    whole = is_whole(place) and "low" in node.data
    said = {"step": 1, **node.data} if whole else node.data
    declared = _declared(place, methods) if parameter else ranges.UNKNOWN
    knob = ranges.parse(said, place, node.path, node.problems, declared)
    _check_place(place, node)
    # one bad entry of a gradient spoils the whole list
    path = node.path.removesuffix(f"[{place[-1]}]" if place else "")
    yield path, knob if len(node.problems) == before else None


def is_whole(place: Place) -> bool:
    """Return whether the knob at a place has whole numbers."""
    return place in (SEED, PER_TOKEN) or RANGE in place


def decides(place: Place) -> bool:
    """Return whether it hangs on the knob at a place which others change anything."""
    return place in (METHOD, mixture_knobs.GATE_MODE, PER_TOKEN) or place[-1] == TAKE_PART


def _methods(data: Any) -> list[Method]:
    """Return the methods that a recipe names, those that there are."""
    named = data.get("merge_method") if isinstance(data, dict) else None
    names = named.get("choices") if isinstance(named, dict) else [named]
    known = METHODS.names()
    return [method(x) for x in names if x in known] if isinstance(names, list) else []


def _declared(place: Place, methods: Sequence[Method]) -> Declared:
    """Return what the methods say of the parameter at a place."""
    name = str(place[place.index("parameters") + 1])
    params = {one.name: param for one in methods if (param := one.param(name)) is not None}
    said = {of: _usual(param) for of, param in params.items()}
    if not said or len(set(said.values())) == 1:
        return next(iter(said.values()), Declared(lacks=f"no method here declares {name!r}"))
    each = ", ".join(f"{of}: {x.low:g} to {x.high:g}" for of, x in said.items() if not x.lacks)
    return Declared(lacks=f"the methods declare other ranges for {name!r} ({each})")


def _usual(param: Param) -> Declared:
    if param.choices:
        return Declared(choices=param.choices, lacks="")
    if param.low is None or param.high is None:
        return Declared(lacks=f"{param.name!r} has no declared range")
    wide = param.low > 0 and param.high / param.low >= WIDE
    return Declared(param.low, param.high, log=wide, lacks="")


def _check_place(place: Place, node: Node) -> None:
    if place == METHOD:
        _check_methods(node)
    elif place == SEED:
        _check_whole(node, ("low", "high", "step", "start"), "a seed")
    elif place[:1] == (MOE,):
        _check_mixture(place, node)
    elif place[:1] == ("models",) and place[2:] == (TAKE_PART,):
        _check_choice(node)
    elif place[-2:-1] == (RANGE,) and slice_of(place):
        _check_whole(node, ("low", "high", "step", "start", "tied"), "a layer's number")
    elif "parameters" not in place[:-1] or place[-1] == "filter":
        node.refuse(ELSEWHERE)
    elif isinstance(node.data, dict):
        _check_setting(place, node)


def _check_choice(node: Node) -> None:
    said = node.data.get("choices")  # 1 is true to Python, not to a reader
    if not isinstance(said, list) or sorted(map(repr, said)) != ["False", "True"]:
        node.expected("{choices: [true, false]}")


def _check_mixture(place: Place, node: Node) -> None:
    if place[1:2] == ("experts",) and place[3:] == (TAKE_PART,):
        _check_choice(node)
    elif place == PER_TOKEN:
        _check_whole(node, ("low", "high", "step", "start"), "a number of experts")
    else:
        mixture_knobs.check_place(place, node)


def _check_setting(place: Place, node: Node) -> None:
    given = [key for key in (*ranges.UNITS, "sum") if key in node.data]
    if isinstance(place[-1], int) and given:
        node.refuse(f"{' and '.join(given)} cannot stand inside a list")
    elif entry_of(place) is None and "sum" in node.data:
        node.refuse("a sum is one over models; give each its own parameters with it")


def _check_methods(node: Node) -> None:
    names, known = node.data.get("choices"), METHODS.names()
    if names is None:
        node.refuse("expected a method or choices, got a range")
    for name in names if isinstance(names, list) else ():
        if name not in known:
            node.refuse(f"no merge method {shown(name)}{hint(str(name), known)}")


def _check_whole(node: Node, known: Sequence[str], what: str) -> None:
    for key in sorted(node.data.keys() - {"choices", *known}, key=str):
        node.at(key).refuse(f"{what} is one whole number; omit it")
    numbers = node.data.get("choices", [node.data.get(key, 1) for key in ("low", "step")])
    if isinstance(numbers, list) and not all(type(x) is int for x in numbers):
        node.refuse("expected whole numbers")


def _check_seed(data: Any, found: Sequence[Knob], path: str, problems: Problems) -> None:
    methods = _methods(data)
    drawn = not methods or any(one.draws for one in methods) or mixture_knobs.draws(data)
    if not drawn and any(knob.place == SEED for knob in found):
        names = ", ".join(one.name for one in methods)
        rule = f"changes nothing: {names} draws no masks; there is nothing to search"
        problems.append((join(path, "seed"), rule))


def takes_part(
    data: Mapping[str, Any], chosen: Method, values: Mapping[Place, Any]
) -> dict[int, bool]:
    """Return whether each model goes into the merge, by its position.

    Where fewer are left than the method needs, or none beside the base, the first of those that
    are out come back in.

    Args:
        data: The recipe.
        chosen: The method.
        values: The values at the places of knobs.
    """
    models, base = [_name(source) for source in data["models"]], data.get("base_model")
    takes = {i: bool(values.get(("models", i, TAKE_PART), True)) for i in range(len(models))}
    used = {str(base)} if base is not None and chosen.base != "none" else set()
    there = {models[i] for i in takes if takes[i]}
    short = max(_least(data, chosen) - len(there | used), 0 if there - used else 1)
    for i in takes:
        if not takes[i] and short > 0:
            takes[i], short = True, short - 1
    return takes


def _least(data: Mapping[str, Any], chosen: Method) -> int:
    base = data.get("base_model")
    if base is None:
        return chosen.models[0]
    bare = any(is_bare(source, base) for source in data["models"])
    # the base is none of those that are merged
    return chosen.models[0] + (chosen.base == "optional" or (chosen.base == "none" and bare))


def _name(source: Any) -> str:
    return str(source.get("model")) if isinstance(source, dict) else ""


def is_bare(source: Any, base: Any) -> bool:
    """Return whether an entry only lists the base, as task-vector recipes do."""
    return isinstance(source, dict) and source.get("model") == base and not source.get("parameters")


def check_together(data: Any, found: Sequence[Knob], path: str, problems: Problems) -> None:
    """Add what is wrong with knobs that belong together: ties, sums, models that take part."""
    _check_seed(data, found, path, problems)
    _check_tied([knob for knob in found if knob.tied is not None], path, problems)
    _check_sums(data, [knob for knob in found if knob.sum is not None], path, problems)
    parts = [k for k in found if k.place[-1:] == (TAKE_PART,) and k.place[0] != MOE]
    _check_parts(data, parts, path, problems)
    check_ranges(data, [k for k in found if RANGE in k.place], path, problems)


def _check_tied(found: Sequence[Knob], path: str, problems: Problems) -> None:
    for name in dict.fromkeys(knob.tied for knob in found):
        first, *others = (knob for knob in found if knob.tied == name)
        where = reduce(join, first.place, path)
        if not others:
            problems.append((where, f"nothing else is tied to {name!r}; name it elsewhere too"))
        for other in others:
            differ = [
                key
                for key, value in vars(replace(other, place=())).items()
                if repr(value) != repr(getattr(replace(first, place=()), key))
            ]
            if differ:
                rule = f"tied to {name!r}, which has another {' and '.join(differ)} at {where}"
                problems.append((reduce(join, other.place, path), rule))


def sum_of(data: Any, knob: Knob) -> tuple[Any, ...]:
    """Return what the knobs of one sum have in common: list of models, parameter and filter."""
    at = knob.place.index("parameters") + 1
    of = (entry_of(knob.place) or ())[:-1]
    setting = found_at(data, knob.place[: at + 1])
    cases = setting if isinstance(setting, list) else [setting]
    position = knob.place[at + 1] if isinstance(setting, list) else 0
    inside = len(knob.place) > at + 1
    return of, knob.place[at], cases[int(position)].get("filter") if inside else None


def _check_sums(data: Any, found: Sequence[Knob], path: str, problems: Problems) -> None:
    together: dict[tuple[Any, ...], list[Knob]] = {}
    for knob in found:
        together.setdefault(sum_of(data, knob), []).append(knob)
    for first, *others in together.values():
        where = reduce(join, first.place, path)
        if not others:
            name = first.place[first.place.index("parameters") + 1]
            rule = f"a sum of one model's {name} is no choice; give it at other models"
            problems.append((where, rule))
        for other in others:
            if (first.sum, first.unit) != (other.sum, other.unit) or (
                first.unit and getattr(first, first.unit) != getattr(other, first.unit)
            ):
                rule = f"one sum has one total and one unit, and {where} says another"
                problems.append((reduce(join, other.place, path), rule))


def _check_parts(data: Any, found: Sequence[Knob], path: str, problems: Problems) -> None:
    base = data.get("base_model")
    others = [k for k in found if base is None or _name(data["models"][k.place[1]]) != str(base)]
    for knob in found:
        if knob not in others:
            rule = "the base always takes part; omit it"
            problems.append((reduce(join, knob.place, path), rule))
    for one in _methods(data) if others else ():
        if all(takes_part(data, one, {knob.place: False for knob in others}).values()):
            rule = f"{one.name!r} needs all of these models; there is nothing to choose"
            problems.append((reduce(join, others[0].place, path), rule))

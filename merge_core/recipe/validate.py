"""What a method asks of a recipe: how many models, a base or none, which parameters and values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from merge_core.contract import Method, Param
from merge_core.errors import SHOWN, Problems, UnknownNameError, hint, join
from merge_core.methods.registry import METHODS, method
from merge_core.recipe.read_fields import leaves
from merge_core.recipe.schema import ModulePart, Recipe, Settings, Source


class _Group(NamedTuple):
    """Sources that are merged with each other."""

    path: str  # key path of their list
    sources: tuple[Source, ...]
    base: str | None  # the model that task vectors are measured from
    shared: tuple[Settings, ...]  # settings that hold for all of them, the most specific first


def check_method(recipe: Recipe, path: str, problems: Problems) -> None:
    """Add a problem for everything in a recipe that its method does not allow."""
    try:
        found = method(recipe.merge_method)
    except UnknownNameError:
        known = METHODS.names()
        rule = f"no merge method {recipe.merge_method!r}{hint(recipe.merge_method, known)}"
        problems.append((join(path, "merge_method"), f"{rule}; known: {', '.join(known)}"))
        return
    groups = list(_groups(recipe, path))
    if found.base == "required" and any(group.base is None for group in groups):
        _missing(join(path, "base_model"), f"required by merge_method {found.name!r}", problems)
    for where, part in _parts(recipe, path):
        _check_parameters(part.parameters, found, join(where, "parameters"), problems)
        for i, one in enumerate(part.slices):
            place = join(join(join(where, "slices"), i), "parameters")
            _check_parameters(one.parameters, found, place, problems)
    for group in groups:
        _check_group(group, found, path, problems)


def _parts(recipe: Recipe, path: str) -> list[tuple[str, Recipe | ModulePart]]:
    """Return the recipe and its modules with their key paths."""
    modules = join(path, "modules")
    return [(path, recipe), *((join(modules, part.name), part) for part in recipe.modules)]


def _groups(recipe: Recipe, path: str) -> Iterator[_Group]:
    for where, part in _parts(recipe, path):
        shared = tuple(dict.fromkeys([part.parameters, recipe.parameters]))
        if part.models:
            yield _Group(join(where, "models"), part.models, recipe.base_model, shared)
        for i, one in enumerate(part.slices):
            place = join(join(join(where, "slices"), i), "sources")
            base = one.base_model or recipe.base_model
            yield _Group(place, one.sources, base, (one.parameters, *shared))


def _check_group(group: _Group, found: Method, path: str, problems: Problems) -> None:
    listed = [source.model for source in group.sources]
    if found.base == "none" and group.base not in (None, *listed):
        rule = f"{found.name!r} has no base; list it as a model or remove it"
        if not group.path.endswith("sources"):  # in slices a base may stand for the config alone
            problems.append((join(path, "base_model"), rule))
    models = {*listed, *([group.base] if group.base and found.base != "none" else [])}
    count, (least, most) = len(models), found.models
    if found.base == "optional" and group.base is not None:
        least += 1  # the base is none of those that are merged
    if listed and (count < least or (most is not None and count > most)):
        most_shown = "or more" if most is None else f"to {most}"
        wanted = f"{least}" if least == most else f"{least} {most_shown}"
        rule = f"{found.name!r} takes {wanted} models, the base included, got {count}"
        problems.append((group.path, rule))
    for param in _required("shared", found, group.shared):
        where = join(join(path, "parameters"), param.name)
        _missing(where, f"required by merge_method {found.name!r}", problems)
    for i, source in enumerate(group.sources):
        _check_source(group, source, found, join(group.path, i), problems)


def _check_source(
    group: _Group, source: Source, found: Method, path: str, problems: Problems
) -> None:
    where = join(path, "parameters")
    if found.base != "none" and source.model == group.base:
        problems.extend(
            (join(where, name), f"the base takes no parameters in {found.name!r}; remove it")
            for name, _ in source.parameters
        )
        return
    _check_parameters(source.parameters, found, where, problems, of_model=True)
    for param in _required("model", found, (source.parameters, *group.shared)):
        rule = f"required by merge_method {found.name!r} for every model"
        _missing(join(where, param.name), rule, problems)


def _required(scope: str, found: Method, given: tuple[Settings, ...]) -> list[Param]:
    names = {name for settings in given for name, _ in settings}
    params = [param for param in found.params if param.scope == scope and param.default is None]
    return [param for param in params if param.name not in names]


def _missing(path: str, rule: str, problems: Problems) -> None:
    """Add a problem, unless what was given there is one already."""
    if len(problems) < SHOWN and not any(where.startswith(path) for where, _ in problems):
        problems.append((path, rule))


def _check_parameters(
    settings: Settings, found: Method, path: str, problems: Problems, of_model: bool = False
) -> None:
    for name, setting in settings:
        where = join(path, name)
        param = found.param(name)
        if param is None:
            known = [p.name for p in found.params]
            rule = f"{found.name!r} has no such parameter{hint(name, known)}"
            problems.append((where, f"{rule}; it has {', '.join(known)}"))
        elif of_model and param.scope == "shared":
            problems.append((where, "one value for the whole merge; move it to recipe parameters"))
        else:
            rules = ((place, param.rule_broken_by(x)) for place, x in leaves(setting, where))
            problems.extend((place, rule) for place, rule in rules if rule is not None)

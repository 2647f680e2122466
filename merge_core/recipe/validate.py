"""What a method asks of a recipe: how many models, a base or none, which parameters and values.

What the method has no use for and mergekit passes over is a notice, and left out of the recipe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, TypeVar

from merge_core.contract import Method, Param
from merge_core.errors import SHOWN, Problems, UnknownNameError, hint, join
from merge_core.methods.registry import METHODS, method
from merge_core.recipe.known_names import why_idle
from merge_core.recipe.read_fields import changed, leaves
from merge_core.recipe.schema import ModulePart, Recipe, Setting, Settings, Slice, Source

P = TypeVar("P", Recipe, ModulePart)


class _Group(NamedTuple):
    """Sources that are merged with each other."""

    path: str  # key path of their list
    sources: tuple[Source, ...]
    base: str | None  # the model that task vectors are measured from
    shared: tuple[Settings, ...]  # settings that hold for all of them, the most specific first


def check_method(recipe: Recipe, path: str, problems: Problems, notices: Problems) -> Recipe:
    """Return a recipe with the settings that its method uses, each in its plain form.

    Args:
        recipe: As it is written.
        path: Its key path.
        problems: Is extended by what the method does not allow.
        notices: Is extended by what it has no use for.
    """
    try:
        found = method(recipe.merge_method)
    except UnknownNameError:
        known = METHODS.names()
        rule = f"no merge method {recipe.merge_method!r}{hint(recipe.merge_method, known)}"
        problems.append((join(path, "merge_method"), f"{rule}; known: {', '.join(known)}"))
        return recipe
    for where, part in _parts(recipe, path):
        if part.slices and not any(map(_layers, part.slices)):
            problems.append((join(where, "slices"), "expected at least one layer, got none"))
    groups = list(_groups(recipe, path))
    if found.base == "required" and any(group.base is None for group in groups):
        _missing(join(path, "base_model"), f"required by merge_method {found.name!r}", problems)
    used = _Used(found, problems, notices).recipe(recipe, path)
    missing: Problems = []
    for group in groups:
        _check_group(group, found, path, problems, missing)
    for where, rule in missing:
        _missing(where, f"{rule}{_stray(where, notices)}", problems)
    return used


class _Used(NamedTuple):
    """Leaves out of parts of a recipe what the method does not use."""

    method: Method
    problems: Problems
    notices: Problems

    def recipe(self, recipe: Recipe, path: str) -> Recipe:
        base = recipe.base_model
        parts = [
            self._part(part, join(join(path, "modules"), part.name), base)
            for part in recipe.modules
        ]
        return replace(self._part(recipe, path, base), modules=tuple(parts))

    def _part(self, part: P, path: str, base: str | None) -> P:
        models, slices = join(path, "models"), join(path, "slices")
        return replace(
            part,
            parameters=self._settings(part.parameters, join(path, "parameters")),
            models=self._sources(part.models, models, base),
            slices=tuple(
                replace(
                    one,
                    parameters=self._settings(one.parameters, join(join(slices, i), "parameters")),
                    sources=self._sources(
                        one.sources, join(join(slices, i), "sources"), one.base_model or base
                    ),
                )
                for i, one in enumerate(part.slices)
            ),
        )

    def _sources(
        self, sources: tuple[Source, ...], path: str, base: str | None
    ) -> tuple[Source, ...]:
        kept = []
        for i, source in enumerate(sources):
            where = join(join(path, i), "parameters")
            of = "base" if self.method.base != "none" and source.model == base else "model"
            kept.append(replace(source, parameters=self._settings(source.parameters, where, of)))
        return tuple(kept)

    def _settings(self, settings: Settings, path: str, of: str = "all") -> Settings:
        """Return the settings that count, of ``all``, of a ``model`` or of the ``base``."""
        kept: list[tuple[str, Setting]] = []
        for name, setting in settings:
            where, param = join(path, name), self.method.param(name)
            idle = self._idle(name, param, of)
            if idle is not None:
                self.notices.append((where, idle))
            elif param is None:
                known = [p.name for p in self.method.params]
                rule = f"{self.method.name!r} has no such parameter{hint(name, known)}"
                self.problems.append((where, f"{rule}; it has {', '.join(known) or 'none'}"))
            else:
                meant = changed(setting, param.meant_by)
                rules = ((place, param.rule_broken_by(x)) for place, x in leaves(meant, where))
                self.problems.extend((place, rule) for place, rule in rules if rule is not None)
                kept.append((name, meant))
        return tuple(kept)

    def _idle(self, name: str, param: Param | None, of: str) -> str | None:
        """Return why a parameter changes nothing where it stands, or None."""
        if param is None:
            return why_idle(name, self.method)
        if of == "base":
            return f"changes nothing: the base takes no parameters in {self.method.name!r}"
        if of == "model" and param.scope == "shared":
            return "changes nothing here: one value for the whole merge; move it to parameters"
        return None


def _parts(recipe: Recipe, path: str) -> list[tuple[str, Recipe | ModulePart]]:
    """Return the recipe and its modules with their key paths."""
    modules = join(path, "modules")
    return [(path, recipe), *((join(modules, part.name), part) for part in recipe.modules)]


def _layers(one: Slice) -> int:
    spans = [source.layer_range for source in one.sources if source.layer_range is not None]
    return spans[0][1] - spans[0][0] if spans else 1


def _groups(recipe: Recipe, path: str) -> Iterator[_Group]:
    for where, part in _parts(recipe, path):
        shared = tuple(dict.fromkeys([part.parameters, recipe.parameters]))
        if part.models:
            yield _Group(join(where, "models"), part.models, recipe.base_model, shared)
        for i, one in enumerate(part.slices):
            place = join(join(join(where, "slices"), i), "sources")
            base = one.base_model or recipe.base_model
            yield _Group(place, one.sources, base, (one.parameters, *shared))


def _check_group(
    group: _Group, found: Method, path: str, problems: Problems, missing: Problems
) -> None:
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
        missing.append((where, f"required by merge_method {found.name!r}"))
    for i, source in enumerate(group.sources):
        _check_source(group, source, found, join(group.path, i), missing)


def _check_source(
    group: _Group, source: Source, found: Method, path: str, missing: Problems
) -> None:
    if found.base != "none" and source.model == group.base:
        return
    for param in _required("model", found, (source.parameters, *group.shared)):
        rule = f"required by merge_method {found.name!r} for every model"
        missing.append((join(join(path, "parameters"), param.name), rule))


def _required(scope: str, found: Method, given: tuple[Settings, ...]) -> list[Param]:
    names = {name for settings in given for name, _ in settings}
    params = [param for param in found.params if param.scope == scope and param.default is None]
    return [param for param in params if param.name not in names]


def _stray(path: str, notices: Problems) -> str:
    """Return a hint where a parameter that is required stands, in vain, in the same owner."""
    owner, _, name = path.rpartition("parameters.")
    for where, _ in notices:
        if where.startswith(owner) and re.split(r"[.\]]", where)[-1] == name:
            return f"; {where.removeprefix(owner)} is not read there, move it here"
    return ""


def _missing(path: str, rule: str, problems: Problems) -> None:
    """Add a problem, unless what was given there is one already."""
    if len(problems) < SHOWN and not any(where.startswith(path) for where, _ in problems):
        problems.append((path, rule))

"""Plain data -> Recipe, with every problem found at once and named by its key path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from merge_core.document import join
from merge_core.document import read as read_document
from merge_core.errors import UnknownNameError, hint
from merge_core.methods.declaration import Method, Param, shown
from merge_core.methods.registry import METHODS, method
from merge_core.recipe import Conditional, Recipe, Scalar, Setting, Settings, Source

KEYS = ("merge_method", "models", "base_model", "parameters", "dtype", "out_dtype", "seed")
LATER = ("slices", "modules", "tokenizer_source", "tokenizer", "chat_template")
DTYPES = ("float32", "bfloat16", "float16")
Problems = list[tuple[str, str]]


def read(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        MergeError: The file cannot be read.
        DocumentError: It is not a recipe; all problems with file, line and key path.
    """
    document = read_document(path)
    problems: Problems = []
    recipe = parse(document.data, "", problems)
    document.fail(problems)
    assert recipe is not None
    return recipe


def parse(data: Any, path: str, problems: Problems) -> Recipe | None:
    """Turn plain data into a recipe; add what is wrong to ``problems`` as (key path, rule).

    Args:
        data: As read from YAML.
        path: Key path of ``data`` in its document, "" for the whole.
        problems: Is extended.

    Returns:
        The recipe, or None if there were problems.
    """
    if not isinstance(data, dict):
        problems.append((path or "(file)", f"expected a recipe (a mapping), got {shown(data)}"))
        return None
    found: Problems = []
    _check_keys(data, KEYS, path, found, LATER)
    recipe = Recipe(
        merge_method=_text(data, "merge_method", path, found, required=True) or "",
        models=_sources(data.get("models"), join(path, "models"), found),
        base_model=_text(data, "base_model", path, found),
        parameters=_settings(data.get("parameters"), join(path, "parameters"), found),
        dtype=_dtype(data, "dtype", path, found),
        out_dtype=_dtype(data, "out_dtype", path, found),
        seed=_seed(data, path, found),
    )
    if recipe.merge_method:
        _check_method(recipe, path, found)
    problems.extend(found)
    return None if found else recipe


def _check_keys(
    data: dict[Any, Any],
    known: tuple[str, ...],
    path: str,
    problems: Problems,
    later: tuple[str, ...] = (),
) -> None:
    for key in data:
        if key in later:
            problems.append((join(path, key), "mergekit key that mergetune does not read yet"))
        elif key not in known:
            problems.append((join(path, str(key)), f"unknown key{hint(str(key), known)}"))


def _text(
    data: dict[str, Any], key: str, path: str, problems: Problems, required: bool = False
) -> str | None:
    value = data.get(key)
    if value is None and key not in data:
        if required:
            problems.append((join(path, key), "required"))
        return None
    if not isinstance(value, str) or not value:
        problems.append((join(path, key), f"expected a name, got {shown(value)}"))
        return None
    return value


def _dtype(data: dict[str, Any], key: str, path: str, problems: Problems) -> str | None:
    value = _text(data, key, path, problems)
    name = value.removeprefix("torch.") if value else None
    if name is not None and name not in DTYPES:
        problems.append((join(path, key), f"expected {' or '.join(DTYPES)}, got {value!r}"))
    return name


def _seed(data: dict[str, Any], path: str, problems: Problems) -> int:
    value = data.get("seed", 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        rule = f"expected a whole number from 0 to 2**63 - 1, got {shown(value)}"
        problems.append((join(path, "seed"), rule))
        return 0
    return value


def _sources(data: Any, path: str, problems: Problems) -> tuple[Source, ...]:
    if not isinstance(data, list) or not data:
        got = "an empty list" if data == [] else shown(data)
        rule = "required" if data is None else f"expected a list of models, got {got}"
        problems.append((path, rule))
        return ()
    sources: list[Source] = []
    for i, entry in enumerate(data):
        where = join(path, i)
        if not isinstance(entry, dict):
            problems.append((where, f"expected {{model, parameters}}, got {shown(entry)}"))
            continue
        _check_keys(entry, ("model", "parameters"), where, problems)
        name = _text(entry, "model", where, problems, required=True) or ""
        if name and name in [source.model for source in sources]:
            problems.append((join(where, "model"), f"{name!r} is listed twice"))
        settings = _settings(entry.get("parameters"), join(where, "parameters"), problems)
        sources.append(Source(name, settings))
    return tuple(sources)


def _settings(data: Any, path: str, problems: Problems) -> Settings:
    if data is None:
        return ()
    if not isinstance(data, dict):
        problems.append((path, f"expected parameters (a mapping), got {shown(data)}"))
        return ()
    settings = [(str(name), _setting(data[name], join(path, str(name)), problems)) for name in data]
    return tuple(sorted((n, s) for n, s in settings if s is not None))


def _setting(data: Any, path: str, problems: Problems) -> Setting | None:
    if isinstance(data, dict):
        case = _conditional(data, path, problems)
        return None if case is None else (case,)
    if isinstance(data, list) and data and all(isinstance(entry, dict) for entry in data):
        cases = [_conditional(entry, join(path, i), problems) for i, entry in enumerate(data)]
        return tuple(case for case in cases if case is not None) or None
    return _value(data, path, problems)


def _conditional(data: dict[str, Any], path: str, problems: Problems) -> Conditional | None:
    _check_keys(data, ("filter", "value"), path, problems)
    if "value" not in data:
        problems.append((path, "expected {filter, value}, got no value"))
        return None
    given = data.get("filter")
    if given is not None and not isinstance(given, str):
        problems.append((join(path, "filter"), f"expected a part of a name, got {shown(given)}"))
    value = _value(data["value"], join(path, "value"), problems)
    return None if value is None else Conditional(given, value)


def _value(data: Any, path: str, problems: Problems) -> Scalar | tuple[Scalar, ...] | None:
    if isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list) and data:
        if all(isinstance(entry, bool | int | float | str) for entry in data):
            return tuple(data)
        problems.append(
            (path, "a gradient takes plain values only, or only {filter, value} entries")
        )
        return None
    got = "an empty list" if data == [] else shown(data)
    problems.append((path, f"expected a number, a list, or {{filter, value}}, got {got}"))
    return None


def _check_method(recipe: Recipe, path: str, problems: Problems) -> None:
    try:
        found = method(recipe.merge_method)
    except UnknownNameError:
        known = METHODS.names()
        rule = f"no merge method {recipe.merge_method!r}{hint(recipe.merge_method, known)}"
        problems.append((join(path, "merge_method"), f"{rule}; known: {', '.join(known)}"))
        return
    _check_models(recipe, found, path, problems)
    where = join(path, "parameters")
    _check_parameters(recipe.parameters, found, where, problems)
    for param in _required("shared", found, [recipe.parameters]):
        _missing(join(where, param.name), f"required by merge_method {found.name!r}", problems)
    for i, source in enumerate(recipe.models):
        where = join(join(path, "models"), i)
        _check_source(recipe, source, found, where, problems)


def _check_models(recipe: Recipe, found: Method, path: str, problems: Problems) -> None:
    listed = [source.model for source in recipe.models]
    if found.base == "required" and recipe.base_model is None:
        _missing(join(path, "base_model"), f"required by merge_method {found.name!r}", problems)
    if found.base == "none" and recipe.base_model not in (None, *listed):
        problems.append(
            (
                join(path, "base_model"),
                f"{found.name!r} has no base; list it as a model or remove it",
            )
        )
    count, (least, most) = len(recipe.references()), found.models
    if listed and (count < least or (most is not None and count > most)):
        most_shown = "or more" if most is None else f"to {most}"
        wanted = f"{least}" if least == most else f"{least} {most_shown}"
        rule = f"{found.name!r} takes {wanted} models, the base included, got {count}"
        problems.append((join(path, "models"), rule))


def _check_source(
    recipe: Recipe, source: Source, found: Method, path: str, problems: Problems
) -> None:
    is_base = found.base != "none" and source.model == recipe.base_model
    where = join(path, "parameters")
    if is_base:
        problems.extend(
            (join(where, name), f"the base takes no parameters in {found.name!r}; remove it")
            for name, _ in source.parameters
        )
        return
    _check_parameters(source.parameters, found, where, problems, of_model=True)
    for param in _required("model", found, [source.parameters, recipe.parameters]):
        rule = f"required by merge_method {found.name!r} for every model"
        _missing(join(where, param.name), rule, problems)


def _required(scope: str, found: Method, given: list[Settings]) -> list[Param]:
    names = {name for settings in given for name, _ in settings}
    params = [param for param in found.params if param.scope == scope and param.default is None]
    return [param for param in params if param.name not in names]


def _missing(path: str, rule: str, problems: Problems) -> None:
    """Add a problem, unless what was given there is one already."""
    if not any(where.startswith(path) for where, _ in problems):
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
            _check_values(param, setting, where, problems)


def _check_values(param: Param, setting: Setting, path: str, problems: Problems) -> None:
    for where, value in leaves(setting, path):
        rule = param.rule_broken_by(value)
        if rule is not None:
            problems.append((where, rule))


def leaves(setting: Setting, path: str) -> Iterator[tuple[str, Scalar]]:
    """Yield (key path, value) for every plain value in a setting."""
    if not isinstance(setting, tuple):
        yield path, setting
        return
    single = len(setting) == 1 and isinstance(setting[0], Conditional)
    for i, entry in enumerate(setting):
        where = path if single else join(path, i)
        if isinstance(entry, Conditional):
            yield from leaves(entry.value, join(where, "value"))
        else:
            yield where, entry

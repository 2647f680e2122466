"""Plain data -> parameter settings: values, gradients, and ``{filter, value}`` entries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from merge_core.errors import Problems, join, shown
from merge_core.recipe.read_fields import check_keys
from merge_core.recipe.schema import Conditional, Scalar, Setting, Settings


def settings(data: Any, path: str, problems: Problems) -> Settings:
    """Read a mapping of parameter names to settings."""
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
    check_keys(data, ("filter", "value"), path, problems)
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

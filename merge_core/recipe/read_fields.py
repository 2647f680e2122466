"""Plain data -> texts and model references; what is wrong is collected as (key path, rule)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from merge_core.errors import Problems, hint, join, shown
from merge_core.recipe.model_reference import Reference, parse


def check_keys(data: dict[Any, Any], known: Iterable[str], path: str, problems: Problems) -> None:
    """Add a problem for every key that is not known."""
    for key in data:
        if key not in known:
            problems.append((join(path, str(key)), f"unknown key{hint(str(key), known)}"))


def text(
    data: dict[str, Any], key: str, path: str, problems: Problems, required: bool = False
) -> str | None:
    """Return a non-empty text, or None with a problem if it is something else or is missing."""
    value = data.get(key)
    if value is None and key not in data:
        if required:
            problems.append((join(path, key), "required"))
        return None
    if not isinstance(value, str) or not value:
        problems.append((join(path, key), f"expected a name, got {shown(value)}"))
        return None
    return value


def reference(
    data: dict[str, Any], key: str, path: str, problems: Problems, required: bool = False
) -> str | None:
    """Return a model reference, given in its short form or as a mapping, as text."""
    value = data.get(key)
    if isinstance(value, dict):
        return _mapped_reference(value, join(path, key), problems)
    return text(data, key, path, problems, required)


def model_reference(data: Any, path: str, problems: Problems) -> str | None:
    """Return a model reference as :func:`reference` does; ``data`` is the value itself."""
    if isinstance(data, dict):
        return _mapped_reference(data, path, problems)
    if isinstance(data, str) and data:
        return data
    problems.append((path, f"expected a model, got {shown(data)}"))
    return None


def _mapped_reference(data: dict[str, Any], path: str, problems: Problems) -> str | None:
    if set(data) == {"path"} or set(data) == {"path", "revision"}:
        data = {"model": data}
    check_keys(data, ("model", "lora"), path, problems)
    parts: list[str | None] = []
    for key in ("model", "lora"):
        part = data.get(key)
        where = join(path, key)
        if part is None and key == "lora":
            break
        if isinstance(part, str):
            part = parse(part).plain()["model"] if part else {}
        if not isinstance(part, dict):
            problems.append((where, f"expected {{path, revision}}, got {shown(part)}"))
            return None
        check_keys(part, ("path", "revision"), where, problems)
        parts += [
            text(part, "path", where, problems, True),
            text(part, "revision", where, problems),
        ]
    return str(Reference(*parts)) if parts[0] else None  # type: ignore[arg-type]

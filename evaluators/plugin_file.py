"""A file that the user names on the command line -> evaluators and scorers by name.

Only the command line names such a file: a study file, which may come from a stranger, cannot.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from evaluators.jsonl.python_function import SCORERS, Scorer
from evaluators.registry import EVALUATORS, EvaluatorPlugin
from merge_core.errors import EvaluationError
from merge_core.plugins import Registry

_loaded: dict[str, list[str]] = {}  # module name -> what it declares


def load(path: Path) -> list[str]:
    """Import a Python file and register what it declares, for this process.

    It may declare ``EVALUATOR`` (an ``EvaluatorPlugin``), ``EVALUATORS`` (a list of them) and
    scorers (functions under ``@scorer``). All of it is registered, or nothing. The same file, if
    unchanged, may be loaded again.

    Args:
        path: The file, as the user gave it.

    Returns:
        The names, in the order of the file, evaluators first.

    Raises:
        EvaluationError: There is no such file, it raises when imported, it declares nothing or
            something else, or one of its names is taken.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"plugin file {path} cannot be read: {error.strerror}") from error
    name = _module_name(path, content)
    if name in _loaded:
        return list(_loaded[name])
    module = _imported(path, content, name)
    try:
        found = _declared(path, module)
        _register(path, found)
    except EvaluationError:
        del sys.modules[name]
        raise
    _loaded[name] = [plugin.name for _, plugin in found]
    return list(_loaded[name])


def _module_name(path: Path, content: bytes) -> str:
    """Return a private name, made from place and content: no import statement meets it."""
    place = str(path.resolve()).encode("utf-8", "surrogateescape")
    digest = hashlib.sha256(place + b"\0" + content).hexdigest()
    return f"_mergetune_plugin_{digest[:16]}"


def _imported(path: Path, content: bytes, name: str) -> ModuleType:
    """Run the file; not through importlib, whose cached bytecode may be of an earlier content."""
    module = ModuleType(name)
    module.__file__ = str(path.resolve())
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    try:
        exec(compile(content, module.__file__, "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise EvaluationError(
            f"plugin file {path} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return module


def _declared(path: Path, module: ModuleType) -> list[tuple[Registry, Any]]:
    plugins: list[Any] = []
    if hasattr(module, "EVALUATOR"):
        plugins.append(module.EVALUATOR)
    listed = getattr(module, "EVALUATORS", ())
    if listed is not EVALUATORS:  # the registry, imported for another purpose
        plugins.extend(listed if isinstance(listed, list | tuple) else [listed])
    for plugin in plugins:
        if not isinstance(plugin, EvaluatorPlugin):
            raise EvaluationError(
                f"plugin file {path}: EVALUATOR must be an EvaluatorPlugin, and EVALUATORS a list "
                f"of them, got {plugin!r}"
            )
    scorers = {id(x): x for x in vars(module).values() if isinstance(x, Scorer)}
    found = [(EVALUATORS, x) for x in plugins] + [(SCORERS, x) for x in scorers.values()]
    if not found:
        raise EvaluationError(
            f"plugin file {path} declares nothing: expected EVALUATOR, EVALUATORS or a function "
            "under @scorer"
        )
    return found


def _register(path: Path, found: list[tuple[Registry, Any]]) -> None:
    """Add all plugins, or none where one of the names is taken."""
    seen: set[tuple[str, str]] = set()
    for registry, plugin in found:
        if plugin.name in registry.names() or (registry.kind, plugin.name) in seen:
            raise EvaluationError(
                f"plugin file {path}: two {registry.kind}s are named {plugin.name!r}"
            )
        seen.add((registry.kind, plugin.name))
    for registry, plugin in found:
        registry.add(plugin.name, plugin)

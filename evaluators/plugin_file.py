"""A file that the user names on the command line -> what it declares, by name.

Only the command line names such a file: a study file, which may come from a stranger, cannot.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from evaluators.jsonl.python_function import SCORERS, Scorer
from evaluators.registry import EVALUATORS, EvaluatorPlugin
from merge_core.errors import EvaluationError
from merge_core.plugins import Registry

Found: TypeAlias = list[tuple[Registry, str, Any]]  # plugins by name, and where they belong
Reader: TypeAlias = Callable[[ModuleType, str], Found]  # takes a module, and words for its file
_loaded: dict[str, list[str]] = {}  # module name -> what it declares
_files: dict[str, tuple[str, bytes]] = {}  # module name -> path and content of its file


def load(path: Path, others: Mapping[str, Reader] | None = None) -> list[str]:
    """Import a Python file and register what it declares, for this process.

    It may declare ``EVALUATOR`` (an ``EvaluatorPlugin``), ``EVALUATORS`` (a list of them) and
    scorers (functions under ``@scorer``). All of it is registered, or nothing. The same file, if
    unchanged, may be loaded again.

    Args:
        path: The file.
        others: What else it may declare, for packages above: the attributes, as they stand in a
            message, and what reads them off the module, which raises a ``MergeError``.

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
    return load_content(str(path.resolve()), content, others, shown=str(path))


def load_content(
    place: str, content: bytes, others: Mapping[str, Reader] | None = None, *, shown: str = ""
) -> list[str]:
    """Register what a file declared when it was read, maybe by another process; see ``load``.

    Args:
        place: The file's absolute path; it need not be there.
        content: What it held.
        others: See ``load``.
        shown: How messages name it, if not by ``place``.

    Raises:
        EvaluationError: See ``load``.
    """
    file = f"plugin file {shown or place}"
    digest = hashlib.sha256(place.encode("utf-8", "surrogateescape") + b"\0" + content).hexdigest()
    name = f"_mergetune_plugin_{digest[:16]}"  # a private one: no import statement meets it
    if name not in _loaded:
        module = ModuleType(name)
        module.__file__ = place
        with ExitStack() as undo:
            sys.modules[name] = module  # before it runs: dataclasses look their module up
            undo.callback(sys.modules.pop, name)
            _run(content, module, file)
            _loaded[name] = _registered(module, file, others or {})
            _files[name] = place, content
            undo.pop_all()
    return list(_loaded[name])


def loaded() -> tuple[tuple[str, bytes], ...]:
    """Return path and content of the files that this process has loaded, in their order."""
    return tuple(_files.values())


def _run(content: bytes, module: ModuleType, file: str) -> None:
    """Run the file; not through importlib, whose cached bytecode may be of an earlier content."""
    try:
        exec(compile(content, str(module.__file__), "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        raise EvaluationError(
            f"{file} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _registered(module: ModuleType, file: str, others: Mapping[str, Reader]) -> list[str]:
    """Add all plugins, or none where one of the names is taken; return the names."""
    found = _evaluators(module, file) + _scorers(module)
    for read in others.values():
        found += read(module, file)
    if not found:
        known = ", ".join(["EVALUATOR", "EVALUATORS", *others])
        raise EvaluationError(
            f"{file} declares nothing: expected {known} or a function under @scorer"
        )
    taken = {(id(registry), name) for registry, _, _ in found for name in registry.names()}
    for registry, name, _ in found:
        if (id(registry), name) in taken:
            raise EvaluationError(f"{file}: two {registry.kind}s are named {name!r}")
        taken.add((id(registry), name))
    for registry, name, plugin in found:
        registry.add(name, plugin)
    return [name for _, name, _ in found]


def _evaluators(module: ModuleType, file: str) -> Found:
    plugins, listed = EVALUATORS.in_file(module, "EVALUATOR")
    plugins.extend(listed if isinstance(listed, list | tuple) else [listed])
    for plugin in plugins:
        if not isinstance(plugin, EvaluatorPlugin):
            raise EvaluationError(
                f"{file}: EVALUATOR must be an EvaluatorPlugin, and EVALUATORS a list of them, "
                f"got {plugin!r}"
            )
    return [(EVALUATORS, plugin.name, plugin) for plugin in plugins]


def _scorers(module: ModuleType) -> Found:
    scorers = {id(x): x for x in vars(module).values() if isinstance(x, Scorer)}
    return [(SCORERS, scorer.name, scorer) for scorer in scorers.values()]

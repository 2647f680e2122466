"""What lm-eval reads of task files: code only with the user's consent, data that lie beside them.

Regular expressions in them are matched by an engine that stops (``evaluators/patterns.py``).

lm-eval runs what a file names under ``!function``, and asks the ``evaluate`` package for metrics it
does not know, which runs code of a folder of that name or of the hub. Who sends a study sends its
task files along, so the command line alone consents (``--trust-tasks``). lm-eval's own files need
no consent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluators import patterns
from evaluators.harness.task_yaml import check_bounds
from merge_core.errors import EvaluationError

_trusted = [False]  # of this process


def trust_tasks() -> None:
    """Let task files run code in this process, from now on."""
    _trusted[0] = True


def are_trusted() -> bool:
    """Return whether task files may run code in this process."""
    return _trusted[0]


@contextmanager
def task_code(*, trusted: bool) -> Iterator[None]:
    """Let task files run code while this lasts, where ``trusted``; else all stays as it is."""
    before = _trusted[0]
    _trusted[0] = before or trusted
    try:
        yield
    finally:
        _trusted[0] = before


@functools.cache
def install_rules() -> None:
    """Let lm-eval read task files by our rules, in this process and from now on."""
    from lm_eval.api import metrics, task
    from lm_eval.filters import extraction
    from lm_eval.tasks import _factory, _index, _yaml_loader

    extraction.re = metrics.re = patterns

    _yaml_loader._mk_function_ctor = _asking_first(_yaml_loader._mk_function_ctor)
    bounded = _within_bounds(_yaml_loader.load_yaml)
    _yaml_loader.load_yaml = _index.load_yaml = bounded
    _factory.load_yaml = _with_data_beside(bounded)
    task.get_metric = _known(task.get_metric)


def _own_folder() -> Path:
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).resolve().parent


def _within_bounds(theirs: Callable[..., Any]) -> Callable[..., Any]:
    own = _own_folder()

    def load_yaml(path: str | Path, **how: Any) -> Any:
        file = Path(path).expanduser().resolve()
        if not file.is_relative_to(own):
            check_bounds(file)
        return theirs(file, **how)

    return load_yaml


def _asking_first(theirs: Callable[..., Any]) -> Callable[..., Any]:
    own = _own_folder()

    def constructor_of(base_dir: Path, resolve: bool) -> Callable[..., Any]:
        made: Callable[..., Any] = theirs(base_dir, resolve)
        if not resolve or base_dir.resolve().is_relative_to(own):
            return made

        def constructed(loader: Any, node: Any) -> Any:
            if not _trusted[0]:
                mark = node.start_mark
                raise EvaluationError(
                    f"{mark.name}:{mark.line + 1}: code of a task file runs only with "
                    f"--trust-tasks, got !function {node.value}; read it, then add the flag"
                )
            return made(loader, node)

        return constructed

    return constructor_of


def _known(theirs: Callable[..., Any]) -> Callable[..., Any]:
    from lm_eval.api.registry import metric_registry

    def get_metric(name: str, hf_evaluate_metric: bool = False) -> Any:
        own = name in metric_registry and not hf_evaluate_metric
        return theirs(name, hf_evaluate_metric) if own or _trusted[0] else None

    return get_metric


def _with_data_beside(theirs: Callable[..., Any]) -> Callable[..., Any]:
    def load_yaml(path: str | Path, **how: Any) -> Any:
        found = theirs(path, **how)
        settings = found.get("dataset_kwargs")
        if isinstance(settings, dict) and "data_files" in settings:
            files = _beside(settings["data_files"], Path(path).resolve().parent)
            found["dataset_kwargs"] = settings | {"data_files": files}
        return found

    return load_yaml


def _beside(files: Any, folder: Path) -> Any:
    """Return ``data_files`` with those as full paths that lie beside the task file."""
    if isinstance(files, dict):
        return {split: _beside(one, folder) for split, one in files.items()}
    if isinstance(files, list):
        return [_beside(one, folder) for one in files]
    here = isinstance(files, str) and (folder / files).is_file()
    return str(folder / files) if here else files

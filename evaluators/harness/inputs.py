"""Which files of the user an lm-eval entry reads: task files, their code, data beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from evaluators.harness.index import Spec, manager_of, name_of
from evaluators.harness.options import LmEvalOptions
from evaluators.harness.task_files import install_rules
from evaluators.harness.task_yaml import LARGEST, check_bounds
from evaluators.registry import Input
from merge_core.errors import EvaluationError
from merge_core.json_text import read_text

if TYPE_CHECKING:
    from lm_eval.tasks._index import Entry

KEY = "include_path"


def inputs_of(options: LmEvalOptions, folder: Path) -> list[Input]:
    """Return the files of ``include_path`` that a task or a group needs; no code is run.

    Files that lie elsewhere, such as those of a task that is written out, are not among them.

    Raises:
        UnknownNameError: There is no such task.
        EvaluationError: A task file names something by an absolute path, or cannot be read.
    """
    if options.include_path is None:
        return []
    install_rules()
    place = folder / options.include_path
    index = manager_of(options.task, place).task_index
    files = {
        file: None
        for file in _task_files(options.task, index, set())
        if file.is_relative_to(place.resolve())
    }
    found: dict[Path, bool] = {}
    for file in files:
        for one, data in _read_by(file):
            found[one] = data
    return [Input(KEY, file, data) for file, data in sorted(found.items())]


def _task_files(spec: Spec, index: Mapping[str, Entry], seen: set[str]) -> Iterator[Path]:
    """Yield the task files of a spec, and those of its members."""
    name = name_of(spec)
    entry = index.get(name)
    if name not in seen and entry is not None:
        seen.add(name)
        if entry.yaml_path is not None:
            yield Path(entry.yaml_path).resolve()
        for tagged in sorted(entry.tags) if entry.yaml_path is None else ():
            yield from _task_files(tagged, index, seen)
    settings = (entry.cfg or {} if entry else {}) if isinstance(spec, str) else spec
    listed = settings.get("task")
    for member in listed if isinstance(listed, list) else ():
        if isinstance(member, str) or "task" in member or "group" in member:
            yield from _task_files(member, index, seen)


def _read_by(file: Path) -> Iterator[tuple[Path, bool]]:
    """Yield a task file, what it includes, its code and its data, and whether each is data."""
    yield file, False
    check_bounds(file)
    root = yaml.compose(read_text(file, EvaluationError, LARGEST), Loader=yaml.SafeLoader)
    for node in _scalars(root, set()):
        if node.tag == "!function":
            code = file.parent / f"{node.value.rpartition('.')[0].replace('.', '/')}.py"
            if code.is_file():
                yield code.resolve(), False
    for node in _scalars(_under(root, "include"), set()):
        yield from _read_by(_beside(node, file))
    data = _under(_under(root, "dataset_kwargs"), "data_files")
    for node in _scalars(data, set()):
        if "://" not in node.value and (file.parent / node.value).is_file():
            yield _beside(node, file), True
        elif Path(node.value).is_absolute():
            _beside(node, file)


def _beside(node: yaml.ScalarNode, file: Path) -> Path:
    if Path(node.value).is_absolute():
        raise EvaluationError(
            f"{file}:{node.start_mark.line + 1}: names a file by an absolute path, which is "
            "nowhere else; write it relative to the task file"
        )
    return (file.parent / str(node.value)).resolve()


def _under(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for name, value in pairs if name.value == key), None)


def _scalars(node: Any, seen: set[int]) -> Iterator[yaml.ScalarNode]:
    """Yield every scalar under a node, each once; anchors may go round."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        yield node
    for part in node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else ():
        for one in part if isinstance(part, tuple) else (part,):
            yield from _scalars(one, seen)

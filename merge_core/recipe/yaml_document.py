"""YAML with a line number for every key path, so that each problem can say where it stands.

PyYAML alone lets a repeated key win silently, reads ``1e-4`` as text and ``12:30`` as 750. Here the
first and the last are problems, and ``1e-4`` is the number that was meant.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from merge_core.errors import DocumentError, MergeError, Problem, Problems, join

EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
SEXAGESIMAL = re.compile(r"[-+]?\d+(:[0-5]?\d)+(\.\d*)?")


@dataclass(frozen=True)
class Document:
    """Plain data of one YAML document and the line of every key path in it."""

    file: str
    data: Any
    lines: dict[str, int] = field(repr=False)

    def line(self, path: str) -> int:
        """Return the line of ``path``, or of its nearest parent that stands in the file."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 1)

    def fail(self, problems: Problems) -> None:
        """Raise all ``(path, rule)`` problems at once, if there are any.

        Raises:
            DocumentError: ``problems`` is not empty.
        """
        if problems:
            unique = dict.fromkeys(problems)
            raise DocumentError(self.file, [Problem(p, r, self.line(p)) for p, r in unique])


def read(path: Path) -> Document:
    """Read one YAML file that holds one document; see :func:`parse`.

    Raises:
        MergeError: The file cannot be read.
    """
    return parse(_text(path), str(path))


def read_all(path: Path) -> list[Document]:
    """Read one YAML file that holds one document or several; see :func:`parse_all`.

    Raises:
        MergeError: The file cannot be read.
    """
    return parse_all(_text(path), str(path))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MergeError(f"{path}: cannot be read: {error}") from error


def parse(text: str, file: str) -> Document:
    """Turn YAML text into a :class:`Document`; ``file`` is the name used in messages.

    Raises:
        DocumentError: It is not YAML, holds several documents, or repeats a key.
    """
    documents = parse_all(text, file)
    if len(documents) != 1:
        raise _wrong(file, f"expected one YAML document, got {len(documents)}")
    return documents[0]


def parse_all(text: str, file: str) -> list[Document]:
    """Turn YAML text into its documents; empty ones do not count.

    Raises:
        DocumentError: It is not YAML, holds no document, or repeats a key.
    """
    documents = []
    try:
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            if node is not None and node.tag != "tag:yaml.org,2002:null":
                reader = _Reader()
                documents.append((Document(file, reader.plain(node, ""), reader.lines), reader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise _wrong(file, f"not YAML: {problem}", mark.line + 1 if mark else 1) from error
    except RecursionError as error:
        raise _wrong(file, "nested too deeply, or an alias that holds itself") from error
    if not documents:
        raise _wrong(file, "expected one YAML document, got 0")
    for document, reader in documents:
        document.fail(reader.problems)
    return [document for document, _ in documents]


def _wrong(file: str, rule: str, line: int = 1) -> DocumentError:
    return DocumentError(file, [Problem("(file)", rule, line)])


class _Reader:
    """Walks YAML nodes once, collecting data, lines and problems."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.problems: Problems = []
        self._scalars = yaml.constructor.SafeConstructor()

    def plain(self, node: yaml.Node, path: str) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(child, join(path, i)) for i, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[Hashable, Any]:
        data: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
                merge = isinstance(key_node, yaml.ScalarNode)
                where = join(path, "<<") if merge else path or "(file)"
                self.lines.setdefault(where, key_node.start_mark.line + 1)
                self.problems.append((where, "keys must be plain text; merge keys are not read"))
                continue
            key = key_node.value
            member = join(path, key)
            if key in data:
                first = self.lines[member]
                self.lines[member] = key_node.start_mark.line + 1
                self.problems.append((member, f"repeated key, it stands first in line {first}"))
            self.lines.setdefault(member, key_node.start_mark.line + 1)
            data[key] = self.plain(value_node, member)
        return data

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        if plain and EXPONENT.fullmatch(node.value):
            return float(node.value)
        if plain and SEXAGESIMAL.fullmatch(node.value):
            self.problems.append(
                (path, f"{node.value} is a base-60 number in YAML; quote it or write a decimal")
            )
            return None
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
            # the last two: PyYAML's own answer to ``!!bool x`` and ``!!timestamp x``
            self.problems.append((path, f"cannot be read: {str(error).splitlines()[0]}"))
            return None

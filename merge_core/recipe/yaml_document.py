"""YAML with a line number for every key path, so that each problem can say where it stands.

PyYAML alone lets a repeated key win silently, reads ``1e-4`` as text and ``12:30`` as 750. Here the
first and the last are problems, and ``1e-4`` is the number that was meant. Size, depth and what
aliases expand to are bounded: a kilobyte of them can stand for more than any memory holds.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from merge_core.errors import DocumentError, MergeError, Problem, Problems, join
from merge_core.json_text import read_text

EXPONENT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")
SEXAGESIMAL = re.compile(r"[-+]?\d+(:[0-5]?\d)+(\.\d*)?")
LARGEST = 2**20  # bytes of a file: a few seconds; the recipe of a large model has a quarter of that
DEEPEST = 64  # levels, aliases followed
MOST = 50_000  # values and keys: as they stand, and values where aliases are followed
MOST_DOCUMENTS = 1000
ROOM = 2**26  # characters of all values and key paths, aliases followed
MERGE = "tag:yaml.org,2002:merge"
LONGEST_KEY = 256  # characters
DEEP = "nested too deeply, or an alias that holds itself"
# what no terminal, path or database takes: C0 and C1 but for line breaks and tabs, half characters
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


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

    def placed(self, problems: Iterable[tuple[str, str]]) -> tuple[Problem, ...]:
        """Return ``(path, rule)`` problems or notices, once each, with their lines."""
        return tuple(Problem(p, rule, self.line(p)) for p, rule in dict.fromkeys(problems))

    def fail(self, problems: Problems) -> None:
        """Raise all ``(path, rule)`` problems at once, if there are any.

        Raises:
            DocumentError: ``problems`` is not empty.
        """
        if problems:
            raise DocumentError(self.file, self.placed(problems))


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
    return read_text(path, MergeError, LARGEST)


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
    if len(text) > LARGEST:
        raise _wrong(file, f"expected at most {LARGEST} characters, got {len(text)}")
    documents = []
    try:
        for node in yaml.compose_all(text, Loader=_Loader):
            if node is not None and node.tag != "tag:yaml.org,2002:null":
                reader = _Reader()
                data = _without_anchors(reader.plain(node, ""))
                documents.append((Document(file, data, reader.lines), reader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise _wrong(file, f"not YAML: {problem}", mark.line + 1 if mark else 1) from error
    except _TooLargeError as error:
        raise _wrong(file, str(error), error.line) from error
    if not documents:
        raise _wrong(file, "expected one YAML document, got 0")
    for document, reader in documents:
        document.fail(reader.problems)
    return [document for document, _ in documents]


def unprintable(text: str) -> str | None:
    """Return the rule that a text breaks by a control character or half of a character in it."""
    found = UNPRINTABLE.search(text)
    return f"has the character U+{ord(found[0]):04X}, which no name or text has" if found else None


def _without_anchors(data: Any) -> Any:
    """Return a document without keys ``x-...``, which hold what aliases stand for."""
    if not isinstance(data, dict):
        return data
    return {key: value for key, value in data.items() if not str(key).startswith("x-")}


def _wrong(file: str, rule: str, line: int = 1) -> DocumentError:
    return DocumentError(file, [Problem("(file)", rule, line)])


class _TooLargeError(Exception):
    def __init__(self, rule: str, mark: yaml.error.Mark) -> None:
        super().__init__(rule)
        self.line = mark.line + 1


class _Loader(yaml.SafeLoader):
    """Composes nodes; counts them and their depth, which aliases do not add to here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = self._documents = 0

    def compose_document(self) -> yaml.Node | None:
        self._documents += 1
        if self._documents > MOST_DOCUMENTS:
            raise _TooLargeError(f"has more than {MOST_DOCUMENTS} documents", self.get_mark())
        return super().compose_document()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth, self._count = self._depth + 1, self._count + 1
        if self._depth > DEEPEST:
            raise _TooLargeError(DEEP, self.get_mark())
        if self._count > MOST:
            raise _TooLargeError(f"has more than {MOST} values and keys", self.get_mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Reader:
    """Walks YAML nodes once, collecting data, lines and problems."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.problems: Problems = []
        self._scalars = yaml.constructor.SafeConstructor()
        self._values = self._characters = self._depth = 0

    def plain(self, node: yaml.Node, path: str) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            self._count(node, len(path) + len(node.value))
            return self._scalar(node, path)
        self._count(node, len(path))
        self._depth += 1
        if self._depth > DEEPEST:
            raise _TooLargeError(DEEP, node.start_mark)
        data = self._mapping(node, path) if _is_map(node) else self._list(node, path)
        self._depth -= 1
        return data

    def _count(self, node: yaml.Node, characters: int) -> None:
        self._values, self._characters = self._values + 1, self._characters + characters
        if self._values > MOST or self._characters > ROOM:
            raise _TooLargeError(
                f"has more than {MOST} values, aliases written out", node.start_mark
            )

    def _list(self, node: yaml.Node, path: str) -> list[Any]:
        return [self.plain(child, join(path, i)) for i, child in enumerate(node.value)]

    def _mapping(self, node: yaml.Node, path: str) -> dict[Hashable, Any]:
        chosen: dict[str, yaml.Node] = {}
        own: dict[str, int] = {}
        for key_node, value_node, merged in self._pairs(node, path, 0):
            line, key = key_node.start_mark.line + 1, self._key(key_node, path)
            if key is None:
                continue
            member = join(path, key)
            self.lines[member], chosen[key] = line, value_node
            if not merged and key in own:
                rule = f"repeated key, it stands first in line {own[key]}"
                self.problems.append((member, rule))
            if not merged:
                own.setdefault(key, line)
        return {key: self.plain(value, join(path, key)) for key, value in chosen.items()}

    def _key(self, node: yaml.Node, path: str) -> str | None:
        """Return a key, or None where it is none, which is a problem."""
        if isinstance(node, yaml.ScalarNode):
            rule = unprintable(node.value)
            if len(node.value) > LONGEST_KEY:
                rule = f"a key has at most {LONGEST_KEY} characters, got {len(node.value)}"
            where, key = path or "(file)", node.value
        else:
            hint = "; is {{ ... }} a placeholder that was not filled in?" if _is_map(node) else ""
            where, key, rule = path or "(file)", "", f"keys must be plain text{hint}"
        if rule is None:
            return str(key)
        self.lines.setdefault(where, node.start_mark.line + 1)
        self.problems.append((where, rule))
        return None

    def _pairs(
        self, node: yaml.Node, path: str, depth: int
    ) -> Iterator[tuple[yaml.Node, yaml.Node, bool]]:
        """Yield keys, values and whether merge keys (``<<``) bring them; these come first.

        What stands in the mapping itself goes before what is merged, and of several merged
        mappings in a list the first one, as in PyYAML.
        """
        if depth > DEEPEST:
            raise _TooLargeError(DEEP, node.start_mark)
        for key_node, value_node in node.value:
            if key_node.tag == MERGE:
                several = isinstance(value_node, yaml.SequenceNode)
                for one in reversed(value_node.value) if several else [value_node]:
                    yield from self._merged(one, path, depth + 1)
        for key_node, value_node in node.value:
            if key_node.tag != MERGE:
                yield key_node, value_node, False

    def _merged(
        self, node: yaml.Node, path: str, depth: int
    ) -> Iterator[tuple[yaml.Node, yaml.Node, bool]]:
        if not _is_map(node):
            where = join(path, "<<")
            self.lines.setdefault(where, node.start_mark.line + 1)
            self.problems.append((where, "expected a mapping or a list of mappings"))
            return
        for key_node, value_node, _ in self._pairs(node, path, depth):
            self._count(key_node, len(path))
            yield key_node, value_node, True

    def _scalar(self, node: yaml.ScalarNode, path: str) -> Any:
        short = len(node.value) < LONGEST_KEY  # matching takes time by the square of the length
        if node.style is None and short and EXPONENT.fullmatch(node.value):
            return float(node.value)
        if node.style is None and SEXAGESIMAL.fullmatch(node.value):
            self.problems.append(
                (path, f"{node.value} is a base-60 number in YAML; quote it or write a decimal")
            )
            return None
        rule: str | None
        try:
            value = self._scalars.construct_object(node)
            rule = unprintable(value) if isinstance(value, str) else None
            if isinstance(value, int) and value.bit_length() > 64:
                rule = f"a whole number of {value.bit_length()} bits; it has 64 at most"
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, OverflowError) as error:
            # the last three: PyYAML's own answer to ``!!bool x``, ``!!timestamp x``, ``!!float``
            rule = f"cannot be read: {str(error).splitlines()[0]}"
        if rule is None:
            return value
        self.problems.append((path, rule))
        return None


def _is_map(node: yaml.Node) -> bool:
    return isinstance(node, yaml.MappingNode)

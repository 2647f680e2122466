"""Plain data at its key path -> texts, model references and settings, or what is wrong there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from merge_core.errors import SHOWN, Problems, hint, join, shown
from merge_core.recipe.model_reference import Reference, parse, rule_broken_by
from merge_core.recipe.schema import Conditional, Scalar, Setting, Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Node:
    """A place in a document."""

    data: Any  # what stands there
    path: str  # its key path; "" for the whole document
    problems: Problems  # is extended by (key path, rule) for all that is wrong

    def at(self, key: Any) -> Node:
        """Return a member; of a key that is not there the data is None."""
        if isinstance(self.data, list):
            return Node(self.data[key], join(self.path, key), self.problems)
        return Node(self.data.get(key), join(self.path, str(key)), self.problems)

    def refuse(self, rule: str) -> None:
        """Add a problem."""
        self.problems.append((self.path or "(file)", rule))

    def expected(self, what: str) -> None:
        """Add a problem: something else stands here."""
        self.refuse(f"expected {what}, got {shown(self.data)}")

    def is_mapping(self, what: str) -> bool:
        """Return whether the data is a mapping; it is a problem if not."""
        if not isinstance(self.data, dict):
            self.expected(what)
        return isinstance(self.data, dict)

    def only(self, known: Iterable[str]) -> None:
        """Add a problem for every key that is not known."""
        for key in self.data:
            if key not in known:
                near = hint(str(key), known) if len(self.problems) < SHOWN else ""
                self.at(key).refuse(f"unknown key{near}")

    def entries(self, of: str) -> list[Node]:
        """Return the members of a list; it is a problem if it is none, or empty."""
        if isinstance(self.data, list) and self.data:
            return [self.at(i) for i in range(len(self.data))]
        got = "an empty list" if self.data == [] else shown(self.data)
        self.refuse(f"expected a list of {of}, got {got}")
        return []

    def read(self, key: str, reader: Callable[[Node], tuple[T, ...]]) -> tuple[T, ...]:
        """Return what ``reader`` gives for a member; nothing if it is not there."""
        return reader(self.at(key)) if key in self.data else ()

    def text(self, key: str, required: bool = False) -> str | None:
        """Return a non-empty text; None if it is missing, or something else, which is a problem."""
        member = self.at(key)
        if isinstance(member.data, str) and member.data:
            return member.data
        if key in self.data:
            member.expected("a name")
        elif required:
            member.refuse("required")
        return None

    def whole(self, key: str, least: int, most: float, words: str) -> int | None:
        """Return a whole number from ``least`` to ``most``, in words; None if it is missing."""
        member = self.at(key)
        value = member.data
        plain = isinstance(value, int) and not isinstance(value, bool)
        if key in self.data and not (plain and least <= value <= most):
            member.expected(f"a whole number from {words}")
        return value if plain and least <= value <= most else None

    def reference(self, key: str, required: bool = False) -> str | None:
        """Return a model reference, given in its short form or as a mapping, as text."""
        if isinstance(self.data.get(key), str | dict) and self.data[key]:
            return self.at(key).model()
        return self.text(key, required)

    def model(self) -> str | None:
        """Return the model reference that stands here, as :meth:`reference` does for a member."""
        if isinstance(self.data, dict):
            return _mapped_reference(self)
        if not isinstance(self.data, str) or not self.data:
            self.expected("a model")
            return None
        rule = rule_broken_by(self.data)
        if rule is not None:
            self.refuse(rule)
        return self.data if rule is None else None


def _mapped_reference(node: Node) -> str | None:
    if set(node.data) in ({"path"}, {"path", "revision"}):
        node = replace(node, data={"model": node.data})
    left = [key for key, value in node.data.items() if value is None and key != "lora"]
    if len(left) == len(node.data) == 1 and left[0] != "model":
        node.refuse(f"expected a model, got {{{left[0]}}}, a placeholder that was not filled in")
        return None
    node.only(("model", "lora"))
    parts: list[str | None] = []
    for key in ("model", "lora"):
        part = node.at(key)
        if part.data is None and key == "lora":
            break
        if isinstance(part.data, str):
            part = replace(part, data=parse(part.data).plain()["model"] if part.data else {})
        if not part.is_mapping("{path, revision}"):
            return None
        part.only(("path", "revision"))
        parts += [part.text("path", required=True), part.text("revision")]
    return str(Reference(*parts)) if parts[0] else None  # type: ignore[arg-type]


def settings(node: Node) -> Settings:
    """Read a mapping of parameter names to settings; nothing is none."""
    if node.data is None or not node.is_mapping("parameters (a mapping)"):
        return ()
    found = [(str(name), _setting(node.at(name))) for name in node.data]
    return tuple(sorted((name, setting) for name, setting in found if setting is not None))


def _setting(node: Node) -> Setting | None:
    if isinstance(node.data, dict):
        places = [node]
    elif isinstance(node.data, list) and node.data and all(isinstance(x, dict) for x in node.data):
        places = [node.at(i) for i in range(len(node.data))]
    else:
        return _value(node)
    return tuple(case for case in map(_conditional, places) if case is not None) or None


def _conditional(node: Node) -> Conditional | None:
    node.only(("filter", "value"))
    if "value" not in node.data:
        node.refuse("expected {filter, value}, got no value")
        return None
    given = node.data.get("filter")
    if given is not None and not isinstance(given, str):
        node.at("filter").expected("a part of a name")
    value = _value(node.at("value"))
    return None if value is None else Conditional(given, value)


def _value(node: Node) -> Scalar | tuple[Scalar, ...] | None:
    if isinstance(node.data, Scalar):
        return node.data
    if isinstance(node.data, list) and node.data:
        if all(isinstance(entry, Scalar) for entry in node.data):
            return tuple(node.data)
        node.refuse("a gradient takes plain values only, or only {filter, value} entries")
        return None
    got = "an empty list" if node.data == [] else shown(node.data)
    node.refuse(f"expected a number, a list, or {{filter, value}}, got {got}")
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

"""Plain data at its key path -> texts, model references and settings, or what is wrong there."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from merge_core.errors import SHOWN, ParameterError, Problems, hint, join, shown
from merge_core.recipe.known_names import why_idle
from merge_core.recipe.model_reference import Reference, parse, rule_broken_by
from merge_core.recipe.schema import Conditional, Scalar, Setting, Settings


@dataclass(frozen=True)
class Node:
    """A place in a document."""

    data: Any  # what stands there
    path: str  # its key path; "" for the whole document
    problems: Problems  # is extended by (key path, rule) for all that is wrong
    notices: Problems = field(default_factory=list)  # for what is said in vain, too

    def at(self, key: Any) -> Node:
        """Return a member; of a key that is not there the data is None."""
        if isinstance(self.data, list):
            return replace(self, data=self.data[key], path=join(self.path, key))
        return replace(self, data=self.data.get(key), path=join(self.path, str(key)))

    def refuse(self, rule: str) -> None:
        """Add a problem."""
        self.problems.append((self.path or "(file)", rule))

    def expected(self, what: str) -> None:
        """Add a problem: something else stands here."""
        self.refuse(f"expected {what}, got {shown(self.data)}")

    def notice(self, rule: str) -> None:
        """Add a notice: what stands here changes nothing."""
        self.notices.append((self.path or "(file)", rule))

    def mapping(self, what: str, known: Iterable[str]) -> Node | None:
        """Return the place with those of the known keys that have a value.

        None, and a problem, if it is no mapping. A key that belongs elsewhere is a notice, one
        that nobody knows a problem.
        """
        if not isinstance(self.data, dict):
            self.expected(what)
            return None
        for key in self.data:
            if key not in known and len(self.problems) < SHOWN:
                self._unknown(str(key), known)
        given = {key: x for key, x in self.data.items() if key in known and x is not None}
        return replace(self, data=given)

    def _unknown(self, key: str, known: Iterable[str]) -> None:
        idle = why_idle(key)
        if idle is None:
            self.at(key).refuse(f"unknown key{hint(key, known)}")
        else:
            self.at(key).notice(idle)

    def entries(self, of: str) -> list[Node]:
        """Return the members of a list; it is a problem if it is none, or empty."""
        if isinstance(self.data, list) and self.data:
            return [self.at(i) for i in range(len(self.data))]
        got = "an empty list" if self.data == [] else shown(self.data)
        self.refuse(f"expected a list of {of}, got {got}")
        return []

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
        value = whole_number(member.data)
        if value is not None and least <= value <= most:
            return value
        if key in self.data:
            member.expected(f"a whole number from {words}")
        return None

    def factor(self, key: str) -> float:
        """Return a finite number other than 0; 1 if it is missing, or something else, a problem."""
        member = self.at(key)
        value = member.data
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and value and math.isfinite(value):
            return float(value)
        if key in self.data:
            member.expected("a finite number other than 0")
        return 1.0

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
    if len(node.data) == 1 and None in node.data.values() and not node.data.keys() & {"model"}:
        (key,) = node.data
        node.refuse(f"expected a model, got {{{key}}}, a placeholder that was not filled in")
        return None
    found = node.mapping("{model, lora}", ("model", "lora"))
    parts: list[str | None] = []
    for key in ("model", "lora") if found and "lora" in found.data else ("model",):
        part = _path_and_revision(node.at(key))
        if part is None:
            return None
        parts += part
    return str(Reference(*parts)) if parts[0] else None  # type: ignore[arg-type]


def _path_and_revision(node: Node) -> tuple[str | None, str | None] | None:
    if isinstance(node.data, str):
        node = replace(node, data=_parsed(node))
        if node.data is None:
            return None
    given = node.mapping("{path, revision}", ("path", "revision"))
    if given is None:
        return None
    path = given.text("path", required=True)
    rule = None if path is None else rule_broken_by(path)
    if rule is not None:
        given.at("path").refuse(rule)
    return path, given.text("revision")


def _parsed(node: Node) -> Any:
    """Return path and revision of a reference's part that is text; None with a problem."""
    text = node.model()
    try:
        found = None if text is None else parse(text)
    except ParameterError as error:
        node.refuse(str(error))
        return None
    if found is not None and found.lora is not None:
        node.refuse(f"expected path or path@revision, got {text!r}: lora: takes the adapter")
        return None
    return None if found is None else found.plain()["model"]


def whole_number(value: Any) -> int | None:
    """Return the whole number that a value is, also as text or as 2.0; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d{1,20}\s*", value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def settings(node: Node) -> Settings:
    """Read a mapping of parameter names to settings; nothing is none."""
    if node.data is None:
        return ()
    if not isinstance(node.data, dict):
        node.expected("parameters (a mapping)")
        return ()
    found: list[tuple[str, Setting]] = []
    for name, value in node.data.items():
        if value is None:
            node.at(name).notice("changes nothing: it has no value")
            continue
        setting = _setting(node.at(name))
        if setting is not None:
            found.append((str(name), setting))
    return tuple(sorted(found, key=lambda pair: pair[0]))


def _setting(node: Node) -> Setting | None:
    if isinstance(node.data, dict):
        places = [node]
    elif isinstance(node.data, list) and node.data and all(isinstance(x, dict) for x in node.data):
        places = [node.at(i) for i in range(len(node.data))]
    else:
        return _value(node)
    return tuple(case for case in map(_conditional, places) if case is not None) or None


def _conditional(node: Node) -> Conditional | None:
    given = node.mapping("{filter, value}", ("filter", "value"))
    if given is None or "value" not in given.data:
        node.refuse("expected {filter, value}, got no value")
        return None
    part = given.data.get("filter")
    if part is not None and not isinstance(part, str):
        node.at("filter").expected("a part of a name")
        return None
    value = _value(given.at("value"))
    if value is None:
        return None
    found = Conditional(part, value)
    if found.meant_as_expression:
        rule = f"{part!r} changes nothing: a filter is a part of tensors' names, no expression"
        node.at("filter").notice(rule)
    return found


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


def changed(setting: Setting, change: Callable[[Scalar], Scalar]) -> Setting:
    """Return a setting with every plain value changed."""

    def plain(value: Any) -> Any:
        return tuple(map(change, value)) if isinstance(value, tuple) else change(value)

    if isinstance(setting, tuple) and isinstance(setting[0], Conditional):
        cases = [case for case in setting if isinstance(case, Conditional)]
        return tuple(replace(case, value=plain(case.value)) for case in cases)
    found: Setting = plain(setting)
    return found

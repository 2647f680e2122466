"""Plugins by name: built-ins and third parties come through one door, loaded when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from merge_core.errors import UnknownNameError, hint


class Registry:
    """Names of one kind of plugin and where each lives.

    Args:
        kind: What the plugins are, for messages (``merge method``).
        group: Entry-point group that third parties register in (``mergetune.methods``).
        builtin: Name -> ``module:attribute`` of the plugins shipped here.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self._group = group
        self._builtin = dict(builtin)
        self._added: dict[str, Any] = {}

    def add(self, name: str, plugin: Any) -> None:
        """Register a plugin object for this process.

        Raises:
            ValueError: The name is taken.
        """
        if name in self._places or name in self._added:
            raise ValueError(f"two {self.kind}s are named {name!r}")
        self._added[name] = plugin

    def names(self) -> tuple[str, ...]:
        """Return every known name, sorted; nothing is imported.

        Raises:
            ValueError: Two installed plugins have the same name.
        """
        return tuple(sorted({*self._places, *self._added}))

    def get(self, name: str) -> Any:
        """Import and return the plugin of that name.

        Raises:
            UnknownNameError: No plugin has that name.
            ValueError: Two installed plugins have the same name.
        """
        if name in self._added:
            return self._added[name]
        places = self._places
        if name not in places:
            near = hint(name, self.names()).removeprefix(", ").removesuffix("?")
            raise UnknownNameError(
                f"no {self.kind} is named {name!r}{f' ({near}?)' if near else ''}; "
                f"known: {', '.join(self.names())}"
            )
        module, _, attribute = places[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def in_file(self, module: ModuleType, name: str) -> tuple[list[Any], Any]:
        """Return what a user's file declares as ``NAME``, and as ``NAMES``.

        A registry under the second name was imported for another purpose: it is as nothing.
        """
        one = [getattr(module, name)] if hasattr(module, name) else []
        many = getattr(module, f"{name}S", ())
        return one, () if many is self else many

    @cached_property
    def _places(self) -> dict[str, str]:
        places = dict(self._builtin)
        for point in entry_points(group=self._group):
            if point.name in places:
                raise ValueError(f"two {self.kind}s are named {point.name!r}")
            places[point.name] = point.value
        return places

"""How a recipe names a model: a path or hub id, perhaps with a revision, perhaps with an adapter.

``path``, ``path@revision``, ``path+lora`` and ``path@revision+lora@revision`` are the short forms.
A path that has an ``@`` or ``+`` in it needs the mapping form ``{model: {path, revision}, lora:
{path, revision}}``; as text that is its JSON.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from merge_core.errors import ParameterError
from merge_core.recipe.yaml_document import unprintable

# what templates leave: {{ x }}, {% x %}, ${X}, {x}, %(x)s, <x>
_PLACEHOLDER = re.compile(
    r"\{\{.*?(\}\}|$)|\{%.*?%\}|\$?\{[\w .-]*\}|%\(\w+\)s|<[\w .-]+>", re.DOTALL
)
_JSON = "a name that begins with { is the JSON of {model: {path, revision}, lora: {path, revision}}"


@dataclass(frozen=True)
class Reference:
    """A model reference in its parts; revisions are for hub ids."""

    path: str
    revision: str | None = None
    lora: str | None = None
    lora_revision: str | None = None

    def __str__(self) -> str:
        parts = [self.path, self.revision, self.lora, self.lora_revision]
        if any(part is not None and ("@" in part or "+" in part) for part in parts):
            return json.dumps(self.plain(), sort_keys=True)
        model = f"{self.path}@{self.revision}" if self.revision else self.path
        if not self.lora:
            return model
        return f"{model}+{self.lora}" + (f"@{self.lora_revision}" if self.lora_revision else "")

    def plain(self) -> dict[str, Any]:
        """Return the mapping form."""
        data = {"model": _plain(self.path, self.revision)}
        if self.lora is not None:
            data["lora"] = _plain(self.lora, self.lora_revision)
        return data


def _plain(path: str, revision: str | None) -> dict[str, str]:
    return {"path": path} | ({"revision": revision} if revision else {})


def parse(text: str) -> Reference:
    """Read a reference in its short form, or the JSON of its mapping form.

    Raises:
        ParameterError: It has several ``+``, several ``@`` in one part, or an empty part; or it is
            no such JSON.
    """
    if text.startswith("{"):
        found = _of_json(text)
        if found is None:
            raise ParameterError(f"model {text!r}: {_JSON}")
        return found
    parts = text.split("+")
    pairs = [part.split("@") for part in parts]
    if len(parts) > 2 or any(len(p) > 2 for p in pairs) or not all(x for p in pairs for x in p):
        raise ParameterError(
            f"model {text!r}: expected path, path@revision or path+lora; a path with @ or + in it "
            f"is written {{model: {{path: ...}}}}"
        )
    (model, lora) = (*pairs, [""]) if len(pairs) == 1 else pairs
    return Reference(model[0], _second(model), lora[0] or None, _second(lora))


def rule_broken_by(text: str) -> str | None:
    """Return why a text cannot name a model, whatever folders there are; None if it may.

    A path may have braces in it, and then begins with ``.``, ``/`` or ``~``; a hub id has none.
    """
    known = _of_json(text) if text.startswith("{") else None
    if known is not None:
        return unprintable("".join(part for part in vars(known).values() if part))
    found = _PLACEHOLDER.search(text)
    if found is not None and (found[0].startswith("{{") or not text.startswith((".", "/", "~"))):
        return f"expected a model, got {text!r}: {found[0]} is a placeholder that was not filled in"
    return f"expected a model, got {text!r}; {_JSON}" if text.startswith("{") else unprintable(text)


def _of_json(text: str) -> Reference | None:
    """Return a reference of the JSON of its mapping form, or None if it is none."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not {"model"} <= data.keys() <= {"model", "lora"}:
        return None
    parts: list[str | None] = []
    for part in data.values():
        if not isinstance(part, dict) or not {"path"} <= part.keys() <= {"path", "revision"}:
            return None
        if not all(isinstance(x, str) and x for x in part.values()):
            return None
    for key in ("model", "lora"):
        part = data.get(key, {})
        parts += [part.get("path"), part.get("revision")]
    return Reference(*parts)  # type: ignore[arg-type]  # a model has a path


def _second(pair: list[str]) -> str | None:
    return pair[1] if len(pair) > 1 else None

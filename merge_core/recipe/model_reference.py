"""How a recipe names a model: a path or hub id, perhaps with a revision, perhaps with an adapter.

``path``, ``path@revision``, ``path+lora`` and ``path@revision+lora@revision`` are the short forms.
A path that has an ``@`` or ``+`` in it needs the mapping form ``{model: {path, revision}, lora:
{path, revision}}``; as text that is its JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from merge_core.errors import ParameterError


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
        ParameterError: It has several ``+``, several ``@`` in one part, or an empty part.
    """
    if text.startswith("{"):
        data = json.loads(text)
        model, lora = data["model"], data.get("lora") or {}
        return Reference(
            model["path"], model.get("revision"), lora.get("path"), lora.get("revision")
        )
    parts = text.split("+")
    pairs = [part.split("@") for part in parts]
    if len(parts) > 2 or any(len(p) > 2 for p in pairs) or not all(x for p in pairs for x in p):
        raise ParameterError(
            f"model {text!r}: expected path, path@revision or path+lora; a path with @ or + in it "
            f"is written {{model: {{path: ...}}}}"
        )
    (model, lora) = (*pairs, [""]) if len(pairs) == 1 else pairs
    return Reference(model[0], _second(model), lora[0] or None, _second(lora))


def _second(pair: list[str]) -> str | None:
    return pair[1] if len(pair) > 1 else None

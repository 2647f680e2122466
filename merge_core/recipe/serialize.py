"""Plain data of a recipe -> YAML that is read back as the same, and a digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

from merge_core.recipe.yaml_document import EXPONENT, SEXAGESIMAL


def to_yaml(documents: Sequence[dict[str, Any]]) -> str:
    """Return YAML of one document or of several."""
    return "---\n".join(
        yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100)
        for data in documents
    )


def plain_reference(reference: str) -> Any:
    """Return a reference as YAML has it: its JSON, for paths with ``@`` or ``+``, as a mapping."""
    return json.loads(reference) if reference.startswith("{") else reference


def inline(data: Any) -> str:
    """Return plain data as YAML on one line, which may stand after a key or a dash."""
    shown = str(data).isprintable()  # else what is not is written out, such as line ends
    text = yaml.dump(
        data,
        Dumper=_OneLine,
        sort_keys=False,
        default_flow_style=True,
        width=2**31,
        allow_unicode=shown,
    )
    return text.removesuffix("\n").removesuffix("\n...").removesuffix("\n")


def digest(data: Any) -> str:
    """Return the SHA-256 of the canonical JSON, hex; 1 and 1.0 are the same number."""
    text = json.dumps(_canonical(data), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class _Dumper(yaml.SafeDumper):
    """Quotes names that ``yaml_document`` would read as numbers or refuse: ``1e5``, ``0:30``."""


for _pattern in (EXPONENT, SEXAGESIMAL):
    _Dumper.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(f"^(?:{_pattern.pattern})$"), list("-+.0123456789")
    )


class _OneLine(_Dumper):
    """Writes out the line ends of texts, repeats what stands in two places."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_on_one_line(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_OneLine.add_representer(str, _text_on_one_line)


def _canonical(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _canonical(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_canonical(value) for value in data]
    if isinstance(data, int) and not isinstance(data, bool):
        return float(data) if abs(data) < 2**53 else data
    return data

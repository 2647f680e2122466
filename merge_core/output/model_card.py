"""The README.md of a merged model: recipe, parents and their licences, how to make it again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from merge_core.plan.steps import Plan
from merge_core.recipe.schema import Recipe

HEAD = 2**18  # bytes of a card that are looked at
MOST = 200  # characters of what it says of its licence
NAME = re.compile(r"[\w.,+()/: -]{1,80}")


def card(plan: Plan, recipe: Recipe, record: Mapping[str, Any]) -> str:
    """Return the text of the model card.

    ``recipe`` is as written beside the card, ``record`` what ``mergetune.json`` says.
    """
    licences = {name: licence(plan.opened[name].folder) for name in plan.recipe.references()}
    parents = "\n".join(
        f"- {_code(name)}, licence {licences[name] or 'not stated'}, SHA-256 {sha}"
        for name, sha in record["parents"].items()
    )
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    head = yaml.safe_dump(_metadata(plan, licences), sort_keys=False)
    return f"""---
{head}---
# A merge by `{plan.method.name}`

Made with mergetune from these parents:

{parents}

```yaml
{recipe.to_yaml()}```

`mergetune merge recipe.yaml OUT` makes the same weights again (digest {record["weights_digest"]}).
Method: {plan.method.source}. Versions: {versions}.
"""


def _metadata(plan: Plan, licences: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the card's YAML head; a licence stands there only if all parents have the same."""
    data: dict[str, Any] = {"library_name": "transformers", "tags": ["merge", "mergetune"]}
    hub = [
        parent.located.model.path
        for parent in plan.opened.values()
        if parent.located is not None and parent.located.model.commit is not None
    ]
    if hub:
        data["base_model"] = hub
    found = set(licences.values())
    if len(found) == 1 and None not in found:
        data["license"] = found.pop()
    return data


def licence(folder: Path) -> str | None:
    """Return the licence that a model's card states in its YAML head, or None.

    The card is a stranger's text that goes into one of ours: only the lines of this key are read,
    and only a name is taken, of at most 80 letters, digits and signs that mean nothing elsewhere.
    """
    file = folder / "README.md"
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        text = stream.read(HEAD).decode("utf-8", "replace")
    parts = text.replace("\r\n", "\n").split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    found = re.search(r"^license:(.*(?:\n[ -].*)*)", parts[1], re.MULTILINE)
    try:
        stated = yaml.safe_load(found[1][:MOST]) if found else None
    except (yaml.YAMLError, ValueError, RecursionError):  # what cannot be read states nothing
        return None
    stated = stated[0] if isinstance(stated, list) and len(stated) == 1 else stated
    return stated if isinstance(stated, str) and NAME.fullmatch(stated) else None


def _code(text: str) -> str:
    """Return a text as code of one line."""
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return f"`{plain.replace('`', chr(39))}`"

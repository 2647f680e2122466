"""The README.md of a merged model: recipe, parents and their licences, how to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from merge_core.plan.steps import Plan
from merge_core.recipe.schema import Recipe


def card(plan: Plan, recipe: Recipe, record: Mapping[str, Any]) -> str:
    """Return the text of the model card.

    ``recipe`` is as written beside the card, ``record`` what ``mergetune.json`` says.
    """
    licences = {name: licence(plan.opened[name].folder) for name in plan.recipe.references()}
    parents = "\n".join(
        f"- `{name}`, licence {licences[name] or 'not stated'}, SHA-256 {sha}"
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
    """Return the licence that a model's card states in its YAML head, or None."""
    file = folder / "README.md"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    parts = text.split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        head = yaml.safe_load(parts[1])
    except yaml.YAMLError:  # somebody else's card: what cannot be read states nothing
        return None
    stated = head.get("license") if isinstance(head, dict) else None
    return str(stated) if stated else None

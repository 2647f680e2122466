"""The README.md of a merged model: recipe, parents and their licences, how to make it again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from merge_core.methods.registry import method
from merge_core.parents.router_file import RouterFile
from merge_core.plan.steps import Plan
from merge_core.recipe.mixture_schema import Expert
from merge_core.recipe.schema import Recipe

HEAD = 2**18  # bytes of a card that are looked at
MOST = 200  # characters of what it says of its licence
MARK = "<!-- mergetune wrote this card; SHA-256 of what is above: "
NAME = re.compile(r"[\w.,+()/: -]{1,80}")


@dataclass(frozen=True)
class CardResult:
    """What is known of a model, by whoever measured it.

    Args:
        metadata: Further keys of the card's YAML head, such as ``model-index``.
        text: Markdown.
    """

    metadata: Mapping[str, Any]
    text: str


def card(
    plan: Plan, recipe: Recipe, record: Mapping[str, Any], result: CardResult | None = None
) -> str:
    """Return the text of the model card, whose last line says that it is as it was written.

    ``recipe`` is as written beside the card, ``record`` what ``mergetune.json`` says.
    """
    text = _text(plan, recipe, record, result or CardResult({}, ""))
    return f"{text}{MARK}{_digest(text)} -->\n"


def is_as_written(text: str) -> bool:
    """Return whether a card is one of ``card``, and nobody has written on it."""
    before, _, digest = text.rpartition(MARK)
    return digest == f"{_digest(before)} -->\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _text(plan: Plan, recipe: Recipe, record: Mapping[str, Any], result: CardResult) -> str:
    models = [x for x in plan.recipe.references() if not isinstance(plan.opened[x], RouterFile)]
    licences = {name: licence(plan.opened[name].folder) for name in models}
    parents = "\n".join(
        f"- {code(name)}, licence {licences[name] or 'not stated'}, SHA-256 {sha}"
        for name, sha in record["parents"].items()
        if name in licences
    )
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    head = yaml.safe_dump({**_metadata(plan, licences), **result.metadata}, sort_keys=False)
    told = f"{result.text}\n" if result.text else ""
    return f"""---
{head}---
# {_title(plan)}

{told}Made with mergetune from these parents:

{parents}
{_mixture(plan, record)}
```yaml
{recipe.to_yaml()}```

`mergetune merge recipe.yaml OUT` makes the same weights again (digest {record["weights_digest"]}).
Method: {_source(plan)}. Versions: {versions}.
"""


def _title(plan: Plan) -> str:
    mixture = plan.recipe.moe
    if mixture is None:
        return f"A merge by `{plan.method.name}`"
    return f"A mixture of {len(mixture.experts)} experts, {mixture.experts_per_token} for a token"


def _source(plan: Plan) -> str:
    """Return where a merge's method is from; a mixture's is that of all but the experts."""
    return method(plan.recipe.merge_method).source


def _mixture(plan: Plan, record: Mapping[str, Any]) -> str:
    """Return lines on a mixture's experts and routers, or nothing."""
    mixture = plan.recipe.moe
    if mixture is None:
        return ""
    every = [("Expert", x) for x in mixture.experts]
    every += [("Shared expert", x) for x in mixture.shared_experts]
    lines = [f"- {kind} {code(x.source_model)}{_prompts(x)}" for kind, x in every]
    rest = f"All but their MLPs is a merge by `{plan.recipe.merge_method}`; routers: "
    made = f"`gate_mode: {mixture.gate_mode}`"
    if mixture.gates is not None:
        made += f", SHA-256 {record['parents'][mixture.gates]}"
    return "\n".join(["", f"{rest}{made}.", "", *lines, ""])


def _prompts(expert: Expert) -> str:
    """Return what is said of an expert's prompts."""
    kinds = {"for": expert.positive_prompts, "not for": expert.negative_prompts}
    return "".join(
        f"; {kind} {', '.join(code(text[:MOST]) for text in prompts)}"
        for kind, prompts in kinds.items()
        if prompts
    )


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


def tool_card(head: Mapping[str, Any], title: str, lines: Sequence[str], command: str) -> str:
    """Return the card of what another command than a merge has made.

    Args:
        head: The YAML head.
        title: Of the card.
        lines: What is said below it.
        command: That made it.
    """
    stated = [f"{key}: {json.dumps(value)}" for key, value in head.items()]
    made = f"Made with mergetune {version('mergetune')}: `mergetune {command}`."
    return "\n".join(["---", *stated, "---", f"# {title}", "", *lines, "", made, ""])


def code(text: str) -> str:
    """Return a text as code of one line."""
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return f"`{plain.replace('`', chr(39))}`"

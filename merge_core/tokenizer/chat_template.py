"""The dialect's ``chat_template``: the parents' most frequent one, one by name, or Jinja itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from merge_core import templates
from merge_core.errors import ParameterError, TemplateError
from merge_core.json_text import read_json, read_text
from merge_core.parents.protocol import Parent
from merge_core.recipe.schema import Recipe
from merge_core.recipe.tokenizer_schema import AUTO, TEMPLATES, template_rule

FOLDER = Path(__file__).parent / "chat_templates"
BYTES = 2**20  # of a template; long ones of today have 2**14


def chat_template(setting: str, parents: Mapping[str, Parent], order: Sequence[str]) -> str | None:
    """Return the Jinja text that a setting stands for.

    Args:
        setting: ``auto``, the name of a format, or Jinja text.
        parents: Every parent by its reference.
        order: The references of the models that count for ``auto``; of equally frequent templates
            the one that stands first wins.

    Returns:
        The text; None if the setting is ``auto`` and no model has a template.

    Raises:
        ParameterError: The setting is none of the three, or no valid Jinja.
        CheckpointError: A parent's files with its template cannot be read.
    """
    if setting == AUTO:
        found = (template_of(parents[name].folder) for name in order)
        counts = Counter(text for text in found if text is not None)
        return max(counts, key=lambda text: counts[text], default=None)  # the first of equals
    rule = template_rule(setting)
    if rule is not None:
        raise ParameterError(f"chat_template: {rule}")
    if setting in TEMPLATES:
        return (FOLDER / f"{setting}.jinja").read_text(encoding="utf-8")
    _check(setting)
    return setting


def check_chat_templates(recipe: Recipe) -> None:
    """Compile what a recipe and its documents have as Jinja text; no model is needed for that.

    Raises:
        ParameterError: One is no valid Jinja.
    """
    for one in (recipe, *recipe.documents):
        if one.chat_template is not None and "{" in one.chat_template:
            _check(one.chat_template)


def _check(text: str) -> None:
    try:
        templates.check(text, "chat")
    except TemplateError as error:
        raise ParameterError(f"chat_template: no valid Jinja: {error}") from error


def template_of(folder: Path) -> str | None:
    """Return a model's default template without white space around it, or None."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return read_text(file, most=BYTES).strip() or None
    config = folder / "tokenizer_config.json"
    given = read_json(config).get("chat_template") if config.is_file() else None
    if isinstance(given, list):  # several, by name
        entries = [entry for entry in given if isinstance(entry, dict)]
        given = next((x.get("template") for x in entries if x.get("name") == "default"), None)
    return (given.strip() or None) if isinstance(given, str) else None

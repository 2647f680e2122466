"""The dialect's ``chat_template``: the parents' most frequent one, one by name, or Jinja itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from merge_core.errors import CheckpointError, ParameterError, Problems, hint, shown
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import read_json

AUTO = "auto"
FOLDER = Path(__file__).parent / "chat_templates"
NAMES = ("alpaca", "chatml", "exaone", "llama3", "mistral")


def parse(data: Any, path: str, problems: Problems) -> str | None:
    """Return the setting if it is ``auto``, a known name or has a ``{``; else add to ``problems``.

    Whether Jinja text compiles is seen by :func:`chat_template`: reading a recipe stays light.

    Args:
        data: As read from YAML.
        path: Key path of ``data`` in its document.
        problems: Is extended, by (key path, rule).
    """
    if not isinstance(data, str) or not data:
        problems.append((path, f"expected {_expected()}, got {shown(data)}"))
        return None
    rule = _rule_broken_by(data)
    if rule is not None:
        problems.append((path, rule))
        return None
    return data


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
        found = (_template_of(parents[name].folder) for name in order)
        counts = Counter(text for text in found if text is not None)
        return max(counts, key=lambda text: counts[text], default=None)  # the first of equals
    rule = _rule_broken_by(setting)
    if rule is not None:
        raise ParameterError(f"chat_template: {rule}")
    if setting in NAMES:
        return (FOLDER / f"{setting}.jinja").read_text(encoding="utf-8")
    _compile(setting)
    return setting


def _expected() -> str:
    return f"{AUTO}, {', '.join(NAMES)}, or Jinja text"


def _rule_broken_by(setting: str) -> str | None:
    if setting == AUTO or setting in NAMES or "{" in setting:
        return None
    return f"expected {_expected()}, got {setting!r}{hint(setting, (AUTO, *NAMES))}"


def _compile(text: str) -> None:
    from jinja2 import TemplateError, TemplateSyntaxError
    from transformers.utils.chat_template_utils import render_jinja_template

    conversation = [{"role": "user", "content": ""}]
    try:
        render_jinja_template(conversations=[conversation], chat_template=text)
    except TemplateSyntaxError as error:
        raise ParameterError(
            f"chat_template: no valid Jinja in its line {error.lineno}: {error.message}"
        ) from error
    except (TemplateError, LookupError, TypeError, ValueError, AttributeError):
        return  # it compiles; what it demands of a conversation is its own affair


def _template_of(folder: Path) -> str | None:
    """Return a model's default template without white space around it, or None."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{file}: cannot be read: {error}") from error
    config = folder / "tokenizer_config.json"
    given = read_json(config).get("chat_template") if config.is_file() else None
    if isinstance(given, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in given}
        given = named.get("default")
    return (given.strip() or None) if isinstance(given, str) else None

"""Turns of a conversation -> a prompt, by the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluators.protocol import Tokenizer
from merge_core import templates
from merge_core.errors import TemplateError


def chat_prompt(tokenizer: Tokenizer, turns: Sequence[Mapping[str, Any]], **settings: Any) -> str:
    """Return ``tokenizer.apply_chat_template(turns, tokenize=False, **settings)``, within bounds.

    The template is a stranger's: see ``merge_core.templates``.

    Raises:
        TemplateError: The template cannot be filled, or there is no one template.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:  # several, and none is the default one
        raise TemplateError(" ".join(str(error).split())) from error
    return templates.fill_chat(template, turns, **{**tokenizer.special_tokens_map, **settings})

"""Turns of a conversation -> a prompt, by the tokenizer's chat template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from evaluators.protocol import Tokenizer
from merge_core import templates
from merge_core.errors import TemplateError

_MARK = "mergetune-answer"  # stands for an answer


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


def end_of_turn(tokenizer: Tokenizer) -> str:
    """Return what ends an answer in a chat: the first special token behind an assistant's turn.

    Such as ``<|im_end|>``; where the template has none there, the tokenizer's end token.
    """
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
    try:
        text = chat_prompt(tokenizer, turns)
    except TemplateError:  # made for other turns than these, or there is none
        text = ""
    behind = text.rpartition(_MARK)[2] if _MARK in text else ""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    special = [re.escape(token) for token in {*added, *tokenizer.all_special_tokens} if token]
    found = re.search("|".join(special), behind) if special else None
    return behind[: found.end()] if found else end_token(tokenizer)


def end_token(tokenizer: Tokenizer) -> str:
    """Return the text of the tokenizer's end token, empty where it has none."""
    return str(tokenizer.eos_token or "")

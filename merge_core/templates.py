"""Jinja templates of others, filled within bounds of time, memory and length.

A sandbox keeps a template from running code, not from looping for ever or making endless text. So
they are filled by a process of their own: ``confined``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from merge_core import confined
from merge_core.errors import TemplateError

BYTES = 2**20  # of a template; long ones of today have 2**15


def fill(template: str, variables: Mapping[str, Any]) -> str:
    """Fill a Jinja template; undefined names are errors, and its last line end stays.

    It has the filter ``regex_replace(pattern, new, count=0)``. Variables are copied, so what a
    template calls changes nothing here.

    Raises:
        TemplateError: It cannot be compiled or filled, or takes more than 1 s of processor time,
            256 MiB or 16 Mi characters.
    """
    return _ask("text", template, dict(variables))


def fill_chat(template: str, turns: Sequence[Mapping[str, Any]], **settings: Any) -> str:
    """Fill a chat template as transformers does.

    Args:
        template: Its text.
        turns: Of one conversation, each with ``role`` and ``content``.
        settings: Arguments of transformers' ``render_jinja_template`` and variables of the
            template, such as ``add_generation_prompt``, ``bos_token``.

    Raises:
        TemplateError: As for ``fill``, or what the settings ask for cannot be.
    """
    conversation = [dict(turn) for turn in turns]
    return _ask("chat", template, {**settings, "conversations": [conversation]})


def check(template: str, kind: str = "text") -> None:
    """Compile a template without filling it.

    ``kind`` is ``text`` for ``fill``, or ``chat`` for ``fill_chat``.

    Raises:
        TemplateError: It is no template, or beyond the bounds.
    """
    _ask(kind, template, None)


def _ask(kind: str, template: str, variables: dict[str, Any] | None) -> str:
    if len(template) > BYTES:
        raise TemplateError(f"the template has more than {BYTES} characters")
    answer = confined.ask(kind, template, variables)
    if "error" in answer:
        raise TemplateError(answer["error"], answer.get("line"), answer.get("refused", False))
    return str(answer["result"])

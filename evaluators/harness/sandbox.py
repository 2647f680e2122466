"""lm-eval's templates, filled in a sandbox: text in a task's file or in a study runs no code.

Nor does it go on for ever, see ``merge_core.templates``. lm-eval fills them in an environment that
is no sandbox, compiled anew for every document. Undefined names, filters, line ends are as there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

from merge_core import templates
from merge_core.errors import EvaluationError, TemplateError

_KEYS = {"resolve_field": "description", "doc_to_prefix": "gen_prefix", "apply": "use_prompt"}


def install_sandbox() -> None:
    """Let lm-eval fill all of its templates here, in this process and from now on."""
    from lm_eval import utils

    def apply_template(template: str, doc: Mapping[str, Any]) -> str:
        try:
            return templates.fill(template, doc)
        except TemplateError as error:
            raise EvaluationError(
                f"{_place(sys._getframe(1))}: a template cannot be filled: {error}"
            ) from error

    utils.env, utils.apply_template = None, apply_template  # what would use theirs is to fail


def _place(caller: FrameType) -> str:
    """Return which task's key is filled; lm-eval's functions have the names of what they fill."""
    key = _KEYS.get(caller.f_code.co_name, caller.f_code.co_name)
    frame: FrameType | None = caller
    while frame is not None and not hasattr(frame.f_locals.get("self"), "config"):
        frame = frame.f_back
    task = frame.f_locals["self"].config.task if frame else "?"
    return f"lm-eval task {task!r}: {key}"

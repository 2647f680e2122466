"""lm-eval's templates, rendered in a sandbox: text in a task's file or in a study runs no code.

lm-eval itself fills them in an environment that is none, compiled anew for every document; here
each is compiled once. Undefined names, filters and line ends are as there.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

from merge_core.errors import EvaluationError

_KEYS = {"resolve_field": "description", "doc_to_prefix": "gen_prefix", "apply": "use_prompt"}


def install_sandbox() -> None:
    """Let lm-eval fill all of its templates here, in this process and from now on."""
    from jinja2 import StrictUndefined
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import utils

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["regex_replace"] = utils.regex_replace
    compiled = functools.cache(environment.from_string)

    def apply_template(template: str, doc: Mapping[str, Any]) -> str:
        try:
            return compiled(template).render(**doc)
        except SecurityError as error:
            raise EvaluationError(
                f"{_place(sys._getframe(1))}: a template may not run code: {error}"
            ) from error

    utils.env, utils.apply_template = environment, apply_template


def _place(caller: FrameType) -> str:
    """Return which task's key is filled; lm-eval's functions have the names of what they fill."""
    key = _KEYS.get(caller.f_code.co_name, caller.f_code.co_name)
    frame: FrameType | None = caller
    while frame is not None and not hasattr(frame.f_locals.get("self"), "config"):
        frame = frame.f_back
    task = frame.f_locals["self"].config.task if frame else "?"
    return f"lm-eval task {task!r}: {key}"

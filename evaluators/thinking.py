"""Models that think before they answer: arguments of their chat template, and where thinking ends.

The words are lm-eval's (``HFLM``): ``chat_template_args`` reach the template, ``enable_thinking``
among them; with ``think_end_token`` an answer is what follows the last one, without the space
before it. As in lm-eval's vLLM, stop strings count in that answer only. Its HFLM ends a batch where
all rows have had a stop string, thoughts included, so there an answer may depend on the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo

from merge_core.errors import EvaluationError, hint
from merge_core.validation import Place, Words, failed

if TYPE_CHECKING:
    from evaluators.protocol import Tokenizer

ENABLE = "enable_thinking"
UNKNOWN = "what a model is to think before its answer (think_end_token) is not known"  # no targets
OURS = frozenset(  # that lm-eval and transformers set themselves
    {
        *("tokenize", "add_generation_prompt", "continue_final_message", "chat_template"),
        *("conversation", "conversations", "messages", "return_tensors", "return_dict"),
        *("return_assistant_tokens_mask", "tokenizer_kwargs", "padding", "truncation"),
        "max_length",
    }
)


def _for_a_template(args: Any, info: ValidationInfo) -> Any:
    found: list[tuple[Place, str]] = []
    if args is not None and info.data.get("apply_chat_template") is False:
        found.append(((), "needs `apply_chat_template: true`"))
    found += [((key,), "set by lm-eval itself; omit it") for key in args or () if key in OURS]
    if found:
        raise failed(found)
    return args


def _ends_thoughts(token: Any, info: ValidationInfo) -> Any:
    args = info.data.get("chat_template_args")
    if token is None and thinks(args):
        raise ValueError(
            f"required with `{ENABLE}: true`: what ends the thoughts, such as '</think>'"
        )
    if token == "":
        raise ValueError("expected a text or the number of a token, got ''")
    return int(token) if isinstance(token, str) and token.isdecimal() else token


TemplateArgs = Annotated[
    Mapping[str, Any] | None,
    AfterValidator(_for_a_template),
    Field(description=f"variables of the chat template, such as {ENABLE}"),
    Words("a mapping"),
]
ThinkEnd = Annotated[
    str | Annotated[int, Field(ge=0)] | None,
    AfterValidator(_ends_thoughts),
    Field(
        validate_default=True,
        description="what ends a model's thoughts, text or token number: the answer comes after",
    ),
    Words("a text or the number of a token"),
]


def thinks(args: Mapping[str, Any] | None) -> bool:
    """Return whether a chat template is asked to let the model think."""
    return bool((args or {}).get(ENABLE))


def thoughts_of(end: str | int | None) -> dict[str, Any]:
    """Return the generation setting for what ends thoughts; none where there are none."""
    return {} if end is None else {"think_end_token": end}


def refuse_thoughts(args: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Validate ``chat_template_args`` of an evaluator that asks for likelihoods."""
    if thinks(args):
        raise failed([((ENABLE,), "likelihoods are of answers without thoughts; set it to false")])
    return args


def check_args(where: str, tokenizer: Tokenizer, args: Mapping[str, Any] | None) -> None:
    """Refuse arguments that change nothing; ``where`` says of what they are.

    Raises:
        EvaluationError: The tokenizer's chat template has no such variable.
    """
    template = tokenizer.get_chat_template() if args else ""
    for name in args or ():
        if not re.search(rf"\b{re.escape(name)}\b", template):
            raise EvaluationError(
                f"{where}: chat_template_args.{name}: the tokenizer's chat template has no such "
                f"variable, so it changes nothing; omit it{hint(name, [ENABLE])}"
            )


def check_end(where: str, tokenizer: Tokenizer, end: str | int | None) -> None:
    """Refuse an end of thoughts that no answer has; ``where`` says of what it is.

    Raises:
        EvaluationError: It is the text of a special token, which answers are read without.
    """
    if not isinstance(end, str):
        return
    special = {
        token.content: number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special
    }
    if end in special:
        raise EvaluationError(
            f"{where}: think_end_token: {end!r} is a special token, which an answer's text lacks; "
            f"write its number, {special[end]}"
        )

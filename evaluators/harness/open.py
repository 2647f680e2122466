"""A score entry with ``evaluator: lm_eval`` -> its task, or the tasks of its group."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from evaluators.harness.groups import shares_of
from evaluators.harness.requests import Prepared, Prompting, prepare
from evaluators.harness.task import LmEvalTask
from evaluators.protocol import Suite
from evaluators.registry import EvaluatorPlugin
from merge_core.validation import Folder, StrictModel, Words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What decides scores but stands neither in the task's requests nor in its settings.
_CHOSEN = {
    *("seed", "apply_chat_template", "system_instruction", "fewshot_as_multiturn", "too_long"),
}


class LmEvalOptions(StrictModel):
    """The keys of a score entry with ``evaluator: lm_eval``."""

    task: Annotated[str | Mapping[str, Any], Words("a text or a mapping")] = Field(
        description="name of an lm-eval task, group or tag, or one written out"
    )
    include_path: Folder | None = Field(
        None, description="task files of your own, relative to the study file"
    )
    metric: str | None = Field(None, description="which of the task's metrics; its first")
    filter: str | None = Field(None, description="which of the task's filters; its first")
    num_fewshot: int | None = Field(
        None, ge=0, description="examples in a prompt; what the task says, or 0"
    )
    apply_chat_template: bool = Field(
        False, description="put prompts in the tokenizer's chat template"
    )
    system_instruction: str | None = Field(None, description="stands before every prompt")
    fewshot_as_multiturn: bool = Field(
        True, description="in a chat: examples are turns of their own"
    )
    gen_kwargs: Mapping[str, Any] | None = Field(
        None, description="over the task's generation settings"
    )
    seed: int = Field(1234, ge=0, description="seed of the few-shot draw")
    too_long: Literal["fail", "cut"] = Field(
        "fail",
        description="an item longer than the model's window: a failed one, or cut at its start",
    )


def open_task(
    options: LmEvalOptions, folder: Path, tokenizer: PreTrainedTokenizerBase
) -> LmEvalTask | Suite:
    """Prepare the task or group that a score entry names; relative paths start from ``folder``.

    Raises:
        UnknownNameError: The task, metric or filter does not exist.
        EvaluationError: The task cannot be loaded, or cannot be scored item by item.
    """
    include_path = folder / options.include_path if options.include_path else None
    prompting = Prompting(
        num_fewshot=options.num_fewshot,
        seed=options.seed,
        system_instruction=options.system_instruction,
        fewshot_as_multiturn=options.fewshot_as_multiturn,
        gen_kwargs=options.gen_kwargs,
    )
    chosen = options.model_dump(include=_CHOSEN)
    chat = tokenizer if options.apply_chat_template else None
    prepared = prepare(options.task, include_path, prompting, chat)
    if isinstance(prepared, Prepared):
        return LmEvalTask(prepared, options.metric, options.filter, chosen)

    def opened(member: Prepared, metric: str | None, filter: str | None) -> LmEvalTask:
        return LmEvalTask(member, options.metric or metric, options.filter or filter, chosen)

    return Suite(prepared.name, tuple(shares_of(prepared, opened)))


EVALUATOR = EvaluatorPlugin(
    name="lm_eval",
    meaning="tasks and groups of lm-evaluation-harness, whatever their output type",
    options=LmEvalOptions,
    open=open_task,
)

"""A score entry with ``evaluator: lm_eval`` -> its task, or the tasks of its group."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.chat_prompts import end_of_turn, end_token
from evaluators.harness.groups import shares_of
from evaluators.harness.inputs import inputs_of
from evaluators.harness.options import LmEvalOptions
from evaluators.harness.requests import Prepared, prepare
from evaluators.harness.targets import Ending
from evaluators.harness.task import LmEvalTask
from evaluators.protocol import Suite
from evaluators.registry import EvaluatorPlugin

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What decides scores but stands neither in the task's requests nor in its settings.
_CHOSEN = {
    *("seed", "apply_chat_template", "system_instruction", "fewshot_as_multiturn", "too_long"),
}
_THINKING = {"chat_template_args", "think_end_token"}  # where given: earlier studies have none


def open_task(
    options: LmEvalOptions, folder: Path, tokenizer: PreTrainedTokenizerBase
) -> LmEvalTask | Suite:
    """Prepare the task or group that a score entry names; relative paths start from ``folder``.

    Raises:
        UnknownNameError: The task, metric or filter does not exist.
        EvaluationError: The task cannot be loaded, or cannot be scored item by item.
    """
    chosen = options.model_dump(include=_CHOSEN)
    chosen |= options.model_dump(include=_THINKING, exclude_none=True)
    prepared = prepare(options, folder, tokenizer)
    cluster = options.cluster
    ending = partial(_ending, tokenizer, options.apply_chat_template)
    if isinstance(prepared, Prepared):
        return LmEvalTask(prepared, options.metric, options.filter, chosen, ending, cluster)

    def opened(member: Prepared, metric: str | None, filter: str | None) -> LmEvalTask:
        return LmEvalTask(
            member, options.metric or metric, options.filter or filter, chosen, ending, cluster
        )

    return Suite(prepared.name, tuple(shares_of(prepared, opened)))


def _ending(tokenizer: PreTrainedTokenizerBase, chat: bool) -> Ending:
    return Ending(end_of_turn(tokenizer) if chat else end_token(tokenizer), chat)


EVALUATOR = EvaluatorPlugin(
    name="lm_eval",
    meaning="tasks and groups of lm-evaluation-harness, whatever their output type",
    options=LmEvalOptions,
    open=open_task,
    reads=inputs_of,
)

"""What a score entry with ``evaluator: lm_eval`` says, in the words of ``simple_evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from evaluators.cluster_keys import MEANING
from evaluators.thinking import TemplateArgs, ThinkEnd
from merge_core.validation import Folder, StrictModel, Words


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
    chat_template_args: TemplateArgs = None
    think_end_token: ThinkEnd = None
    system_instruction: str | None = Field(None, description="stands before every prompt")
    fewshot_as_multiturn: bool = Field(
        True, description="in a chat: examples are turns of their own"
    )
    gen_kwargs: Mapping[str, Any] | None = Field(
        None, description="over the task's generation settings"
    )
    seed: int = Field(1234, ge=0, description="seed of the few-shot draw")
    cluster: str | None = Field(None, description=MEANING)
    too_long: Literal["fail", "cut"] = Field(
        "fail",
        description="an item longer than the model's window: a failed one, or cut at its start",
    )

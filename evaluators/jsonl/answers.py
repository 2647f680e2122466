"""Answers that the model writes: what all evaluators of generated text do alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evaluators.engines.context_window import count_tokens, too_long, window_of
from evaluators.json_rows import Row
from evaluators.jsonl.prompts import SEPARATOR, PromptOptions, Prompts
from evaluators.protocol import LiveModel
from evaluators.registry import option
from evaluators.scoring import check_positions
from merge_core.errors import ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class GenerationOptions(PromptOptions):
    """The keys that decide an answer. It is always the greedy one."""

    stop: Sequence[str] | None = option(
        "a text or a list of texts",
        "what ends an answer; an empty line, or in a chat nothing but its end token",
        default=None,
    )
    max_tokens: int = option("a whole number", "most tokens of an answer", default=256, low=1)


@dataclass(frozen=True, kw_only=True)
class FreeAnswerOptions(GenerationOptions):
    """The same, where no answer is the right one and only examples need one."""

    gold: str | None = option(
        "text", "the key of an example's answer, with num_fewshot", default=None
    )


def example_answer(options: FreeAnswerOptions) -> Callable[[Row], str]:
    """Return what reads an example's answer.

    Raises:
        ParameterError: There are to be examples, but no key of their answers.
    """
    key = options.gold
    if options.num_fewshot and key is None:
        raise ParameterError(
            f"num_fewshot is {options.num_fewshot}, so `gold` must name the key of the answers"
        )
    return lambda row: row.text(key or "")


class Answers:
    """Asks the model; keeps the reasons of what could not be asked.

    Args:
        prompts: What to ask.
        options: How.
        tokenizer: Counts the tokens of prompts.
    """

    def __init__(
        self, prompts: Prompts, options: GenerationOptions, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._prompts = prompts
        self._tokens = count_tokens(tokenizer, prompts.texts)
        self.how: dict[str, Any] = {
            "until": _stops(options),
            "max_gen_toks": options.max_tokens,
            "do_sample": False,
        }

    def of(
        self, model: LiveModel, which: Sequence[int], failures: dict[str, str]
    ) -> list[str | None]:
        """Return the answers to some prompts; None, with a reason, where a prompt is too long.

        Args:
            model: The candidate.
            which: Positions.
            failures: Item id -> reason; added to.

        Raises:
            IndexError: A position is no item's.
            NonFiniteError: The model's answer is NaN or infinite.
        """
        items = self._prompts.items
        check_positions(self._prompts.task, items, which)
        window = window_of(model)
        reasons = {
            i: too_long(self._tokens[i], self.how["max_gen_toks"], window) for i in set(which)
        }
        failures.update({items[i].id: reason for i, reason in reasons.items() if reason})
        asked = [i for i in which if not reasons[i]]
        said = iter(
            model.engine.generate_until([(self._prompts.texts[i], self.how) for i in asked])
        )
        return [None if reasons[i] else next(said) for i in which]


def _stops(options: GenerationOptions) -> list[str]:
    if options.stop is None:
        return [] if options.apply_chat_template else [SEPARATOR]
    return [options.stop] if isinstance(options.stop, str) else list(options.stop)

"""How many tokens a model can see; engines cut what is longer, so evaluators look before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from evaluators.log_control import hushed_logs
from evaluators.protocol import Evaluator, LiveModel
from merge_core.errors import ItemError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def window_of(model: LiveModel) -> int | None:
    """Return the most tokens that model and engine take, prompt and answer together.

    Returns:
        The least of what the model's config and the engine's fingerprint (``max_length``) say;
        None where neither says anything.
    """
    config = model.model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    try:
        facts = json.loads(model.engine.fingerprint())
    except ValueError:
        facts = None
    said = facts.get("max_length") if isinstance(facts, dict) else None
    names = ("max_position_embeddings", "n_positions", "n_ctx")
    told = [said, *(getattr(text, name, None) for name in names)]
    return min((size for size in told if isinstance(size, int)), default=None)


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Return the number of tokens of each text, with the special tokens the tokenizer adds.

    An engine may add fewer (a chat prompt brings its own): one token of a window may stay unused,
    but nothing that is too long passes.
    """
    if not texts:
        return []
    with hushed_logs():  # transformers warns of each text longer than its window
        return [len(ids) for ids in tokenizer(list(texts))["input_ids"]]


def too_long(tokens: int, answer: int, window: int | None) -> str:
    """Return why a prompt with up to ``answer`` more tokens does not fit a window, or nothing."""
    if window is None or tokens + answer <= window:
        return ""
    room = f" and up to {answer} of its answer" if answer else ""
    return (
        f"{tokens} tokens{room} do not fit the model's window of {window}; "
        "shorten the prompt, or ask for fewer examples or tokens"
    )


def unfit(tokens: Mapping[int, int], answer: int, window: int | None) -> dict[int, str]:
    """Return why prompts do not fit, of those that do not; see ``too_long``."""
    found = {i: too_long(count, answer, window) for i, count in tokens.items()}
    return {i: reason for i, reason in found.items() if reason}


def check_fit(evaluator: Evaluator, model: LiveModel, which: Sequence[int]) -> None:
    """Refuse items that the model cannot take, before it is asked for answers to show.

    Raises:
        ItemError: There are some; one is named.
        IndexError: A position is outside the items.
    """
    evaluator.check_positions(which)
    for i, reason in evaluator.unfit(model, which).items():
        raise ItemError(f"{evaluator.task}: item {evaluator.items[i].id}: {reason}")

"""The first items of each task as a model will read them, with what is right and what ends answers.

No model is asked: so it is seen before a run that a template is empty, a key is the wrong one, or
nothing ends an answer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from evaluators.engines.stopping import Stopping
from evaluators.protocol import Evaluator
from evaluators.target import Choice
from merge_core.errors import NoPromptsError, NoTargetsError
from search.trial.tasks import SEARCH, Tasks

FEW = 2  # items of a task
LONGEST = 4000  # characters of a text: its beginning and its end


@dataclass(frozen=True)
class FirstItem:
    """An item as a model will read it.

    Args:
        id: Of the item.
        prompt: What is read first; None where the task does not say.
        right: What is right to say after it, with what ends it; more than one where any of them is;
            none where the task does not say.
        others: Choices that are wrong, where choices are compared.
        unknown: Why nothing is known to be right, or nothing.
        stop: Strings that end an answer, beside the end token; None where nothing is written.
        most: Tokens of an answer, where it is written.
    """

    id: str
    prompt: str | None
    right: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    unknown: str = ""
    stop: tuple[str, ...] | None = None
    most: int | None = None

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {key: list(x) if isinstance(x, tuple) else x for key, x in asdict(self).items()}


def first_items(tasks: Tasks, count: int = FEW) -> dict[str, list[FirstItem]]:
    """Return task -> its first items of the search pool, whose order is random.

    Args:
        tasks: The study's.
        count: Of a task, at most.

    Raises:
        EvaluationError: A task cannot say what it asks.
    """
    return {
        task: [_item(evaluator, i) for i in tasks.pools[SEARCH].of(task)[:count]]
        for task, evaluator in tasks.evaluators.items()
        if not evaluator.exact  # a fact of the whole model: no item is asked
    }


def _item(evaluator: Evaluator, i: int) -> FirstItem:
    prompt = _prompt(evaluator, i)
    right, others, unknown = _right(evaluator, i, prompt)
    (how,) = evaluator.generation([i])
    stopping = None if how is None else Stopping.of(how)
    return FirstItem(
        evaluator.items[i].id,
        None if prompt is None else shortened(prompt),
        right,
        others,
        unknown,
        None if stopping is None else stopping.strings,
        None if stopping is None else stopping.most_tokens,
    )


def right_texts(evaluator: Evaluator, i: int) -> tuple[str, ...]:
    """Return what is right to say to an item, with what stands before and ends it; maybe nothing.

    Raises:
        EvaluationError: The task cannot say what it asks.
    """
    return _right(evaluator, i, _prompt(evaluator, i))[0]


def _prompt(evaluator: Evaluator, i: int) -> str | None:
    try:
        (text,) = evaluator.prompts([i])
    except NoPromptsError:
        return None
    return text


def _right(
    evaluator: Evaluator, i: int, prompt: str | None
) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Return what is right to say, which choices are wrong, and why nothing is known of it."""
    try:
        (target,) = evaluator.targets([i])
    except NoTargetsError as error:
        return (), (), str(error).partition("has no gradient: ")[2] or str(error)
    texts = [_said(choice, prompt) for choice in target.choices]
    wrong = [x for place, x in enumerate(texts) if place not in target.right]
    return tuple(texts[place] for place in target.right), tuple(wrong), ""


def _said(choice: Choice, prompt: str | None) -> str:
    """Return what a choice says after the prompt; of a text that is read as a whole nothing."""
    first = choice.texts[0]
    if len(choice.texts) > 1 or isinstance(first, str):
        return ""
    context, text = first
    return shortened(text if context == prompt else f"{context}{text}")


def shortened(text: str) -> str:
    """Return the beginning and the end of a text that is too long to be shown."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} … {text[-half:]}"

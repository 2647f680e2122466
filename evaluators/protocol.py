"""What crosses the evaluators' border: items and scores as plain values, the model as it is."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from evaluators.answer import Answer
from evaluators.facts import Item as Item
from evaluators.facts import TaskFacts as TaskFacts
from evaluators.facts import canonical as canonical
from evaluators.facts import items_of as items_of
from evaluators.target import Target
from merge_core.errors import EvaluationError, NoAnswersError, NoPromptsError, NoTargetsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ScoreVector: TypeAlias = npt.NDArray[np.float64]
Tokenizer: TypeAlias = "PreTrainedTokenizerBase"


class Engine(Protocol):
    """Runs the model of one candidate on text; the same object serves every candidate and task.

    The weights may change between two calls, never during one. They answer in the order
    they are asked in, leave the global random state alone and print nothing.
    """

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Return ``(log P(continuation | context) in nats, is it the greedy one?)`` per pair.

        Raises:
            NonFiniteError: A log-likelihood is NaN or infinite.
        """
        ...

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        """Return ``log P(text)`` in nats per text, 0.0 where a text has no tokens.

        The first token follows the prefix token; a text longer than the model is cut into windows
        that predict each token once.

        Raises:
            NonFiniteError: A log-likelihood is NaN or infinite.
        """
        ...

    def generate_until(self, prompts: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Return one continuation per ``(prompt, generation settings in lm-eval's words)``.

        Raises:
            NonFiniteError: A token was to be chosen from logits that are NaN.
        """
        ...

    def losses(self, targets: Sequence[Target]) -> list[float]:
        """Return the loss of each target on the weights that the model has now. See ``target``.

        Raises:
            NonFiniteError: A loss is NaN or infinite.
            ParameterError: The engine has no gradients.
        """
        ...

    def backward(self, targets: Sequence[Target], weights: Sequence[float]) -> list[float]:
        """Add the gradient of ``sum_i weights[i] * losses[i]`` to the parameters' ``grad``.

        Batch by batch: hooks on the parameters see the gradient of one batch after the other. Which
        parameters have gradients is the caller's affair.

        Returns:
            The losses.

        Raises:
            NonFiniteError: A loss is NaN or infinite.
            ParameterError: The engine has no gradients, or not for this model.
        """
        ...

    def fingerprint(self) -> str:
        """Name what could change an answer besides the weights: versions, dtype, device, batch."""
        ...


@dataclass(frozen=True, eq=False)
class LiveModel:
    """The candidate as evaluators see it. Its weights are overwritten in place between calls.

    Ask ``engine``; ``model`` has config, names and shapes. Only under the engine ``hf`` does it
    have the weights, too: under ``vllm`` its tensors are on torch's meta device.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    batch_size: int
    engine: Engine


def _fact(name: str) -> Any:
    return property(attrgetter(f"facts.{name}"))


class Evaluator(ABC):
    """A live model in, one score per item out. It knows nothing of averages, subsets or trials.

    Each fact is also a read-only attribute of the evaluator, see ``TaskFacts``; ``failures`` is
    item id -> why it has no score, of the latest call of ``score``.
    """

    task: str = _fact("task")
    unit: str = _fact("unit")
    higher_is_better: bool = _fact("higher_is_better")
    items: tuple[Item, ...] = _fact("items")
    sizes: tuple[float, ...] | None = _fact("sizes")
    reported: Callable[[float], float] = _fact("reported")
    chance: float | None = _fact("chance")
    documents: tuple[str, ...] | None = _fact("documents")
    notice: str = _fact("notice")
    measured: bool = _fact("measured")
    clusters: tuple[str, ...] | None = _fact("clusters")
    clustered_by: str = _fact("clustered_by")
    exact: bool = _fact("exact")
    bounds: tuple[float, float] | None = _fact("bounds")
    binary: bool = _fact("binary")
    source: str | None = _fact("source")
    cluster_ids: tuple[str, ...] = _fact("cluster_ids")

    def __init__(self, facts: TaskFacts) -> None:
        self.facts = facts
        self.failures: dict[str, str] = {}

    @abstractmethod
    def score(self, model: LiveModel, which: Sequence[int]) -> ScoreVector:
        """Score some items on the weights that the model has now.

        The same positions in any order give the same bits. Among other neighbours an item may be
        padded and so rounded differently; nothing else about the others may reach its score.

        Args:
            model: The candidate; it is left as it was.
            which: Positions in ``items``, any order, repeats allowed.

        Returns:
            ``(len(which),)`` float64, one score per position asked for, nan where the item failed.

        Raises:
            NonFiniteError: The model's answer is NaN or infinite: it has no score.
            EvaluationError: The task raised; the cause is kept.
            IndexError: A position is outside ``items``.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Name everything but the model and its engine that could change a score."""

    def targets(self, which: Sequence[int]) -> Sequence[Target]:
        """Return what some items want said, so that the score may be followed by gradient.

        Known without a model. Asked for no items it raises, too, if it would for others.

        Args:
            which: Positions in ``items``, any order, repeats allowed.

        Raises:
            NoTargetsError: The task does not say which answers are right; the default.
            IndexError: A position is outside ``items``.
        """
        raise self.no_targets("its evaluator does not say which answers are right")

    def no_targets(self, reason: str) -> NoTargetsError:
        """Return the error that there are no targets, and why."""
        return NoTargetsError(f"{self.task} has no gradient: {reason}")

    def prompts(self, which: Sequence[int]) -> list[str]:
        """Return what a model reads of some items before it answers, one text each.

        Known without a model; by default what their ``targets`` begin with.

        Raises:
            NoPromptsError: The task does not say it.
        """
        try:
            return [target.start for target in self.targets(which)]
        except NoTargetsError as error:
            raise NoPromptsError(f"{self.task} names neither prompts nor targets") from error

    def generation(self, which: Sequence[int]) -> list[Mapping[str, Any] | None]:
        """Return how a model is to write its answers to some items, to be looked at.

        Args:
            which: Positions in ``items``, any order, repeats allowed.

        Returns:
            One entry per position: settings as ``Engine.generate_until`` has them, such as
            ``until``; None, the default, where nothing is written.

        Raises:
            IndexError: A position is outside ``items``.
        """
        self.check_positions(which)
        return [None] * len(which)

    def answers(self, model: LiveModel, which: Sequence[int]) -> Sequence[Answer]:
        """Return what a model says to some items on the weights that it has now, to be looked at.

        Scores, weights and the global random state are left as they were. Asked for no items it
        raises, too, if it would for others, and asks the model nothing.

        Args:
            model: The candidate; it is left as it was.
            which: Positions in ``items``, any order, repeats allowed.

        Returns:
            One answer per position asked for.

        Raises:
            NoAnswersError: There is nothing to show, as of a perplexity or a cost; the default.
            ItemError: The model cannot take an item.
            IndexError: A position is outside ``items``.
        """
        raise self.no_answers("its evaluator does not show what a model says")

    def no_answers(self, reason: str) -> NoAnswersError:
        """Return the error that there are no answers, and why."""
        return NoAnswersError(f"{self.task} has no answers to show: {reason}")

    def unfit(self, model: LiveModel, which: Sequence[int]) -> Mapping[int, str]:
        """Return which of some items the model cannot take, and why; where that is not known, none.

        The model is asked for its window, not for an answer.
        """
        return {}

    def note_unfit(self, model: LiveModel, which: Sequence[int]) -> Mapping[int, str]:
        """Return ``unfit``, whose reasons are the ``failures`` that ``score`` begins with.

        Raises:
            IndexError: A position is outside ``items``.
        """
        self.check_positions(which)
        reasons = self.unfit(model, which)
        self.failures = {self.items[i].id: reason for i, reason in reasons.items()}
        return reasons

    def check_positions(self, which: Sequence[int]) -> None:
        """Refuse positions that are no item's.

        Raises:
            IndexError: A position is outside ``items``; -1 is, too.
        """
        outside = [i for i in which if not 0 <= i < len(self.items)]
        if outside:
            raise IndexError(f"{self.task} has {len(self.items)} items, got positions {outside}")


def score_items(evaluator: Evaluator, model: LiveModel, which: Sequence[int]) -> ScoreVector:
    """Return ``evaluator.score(model, which)``, which may be anything where a plugin is wrong.

    Raises:
        EvaluationError: It is not one float64 per position asked for, or a score, nan aside, is
            none that the task's facts say there can be: by ``bounds``, ``binary`` or ``exact``.
        NonFiniteError, IndexError: See ``Evaluator.score``.
    """
    found: object = evaluator.score(model, which)
    rule = f"{evaluator.task}: expected {len(which)} scores as a float64 array, got"
    if not isinstance(found, np.ndarray):
        raise EvaluationError(f"{rule} {type(found).__name__}")
    if found.dtype != np.float64 or found.shape != (len(which),):
        raise EvaluationError(f"{rule} {found.dtype} of shape {found.shape}")
    _refuse_odd(evaluator, found[~np.isnan(found)])
    return found


def _refuse_odd(evaluator: Evaluator, scores: ScoreVector) -> None:
    task, wrong = evaluator.task, scores[:0]
    if evaluator.bounds is not None:
        low, high = evaluator.bounds
        wrong = scores[(scores < low) | (scores > high)]
        rule = f"`bounds` say that scores are in [{low:g}, {high:g}]"
    if evaluator.binary and not wrong.size:
        wrong, rule = scores[(scores != 0) & (scores != 1)], "`binary` says that scores are 0 or 1"
    if evaluator.exact and not wrong.size:
        wrong = scores[scores != scores[0]] if scores.size else scores
        rule = "`exact` says that every item has the same score"
    if wrong.size:
        raise EvaluationError(f"{task}: its facts' {rule}, got {wrong[0]}")


def answer_items(evaluator: Evaluator, model: LiveModel, which: Sequence[int]) -> list[Answer]:
    """Return ``evaluator.answers(model, which)``, which may be anything where a plugin is wrong.

    Raises:
        EvaluationError: It is not one ``Answer`` of texts per position asked for.
        NoAnswersError, ItemError, IndexError: See ``Evaluator.answers``.
    """
    found: object = evaluator.answers(model, which)
    rule = f"{evaluator.task}: expected {len(which)} answers in a list, got"
    if not isinstance(found, list | tuple):
        raise EvaluationError(f"{rule} {type(found).__name__}")
    odd = [x for x in found if not isinstance(x, Answer) or not x.is_text]
    if odd or len(found) != len(which):
        raise EvaluationError(f"{rule} {odd[0] if odd else len(found)!r}")
    return list(found)


@dataclass(frozen=True)
class Suite:
    """Several evaluators under one score entry, such as a group of tasks.

    Args:
        name: To show.
        members: Evaluators of different names, at least one, with their shares in the mean of the
            entry, which sum to 1.
    """

    name: str
    members: tuple[tuple[Evaluator, float], ...]


def fingerprint(evaluator: str, settings: Mapping[str, Any], requests: Iterable[object]) -> str:
    """Return a JSON object that names an evaluator's settings and all that it asks.

    Args:
        evaluator: Its name.
        settings: JSON values.
        requests: One entry per item, whatever JSON can write; only their hash is kept.
    """
    asked = hashlib.sha256()
    for request in requests:
        asked.update(canonical(request) + b"\n")
    told = {"evaluator": evaluator, **settings, "requests": asked.hexdigest()}
    return json.dumps(told, sort_keys=True)

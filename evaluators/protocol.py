"""What crosses the evaluators' border: items and scores as plain values, the model as it is."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from evaluators.target import Target
from merge_core.errors import EvaluationError, NoPromptsError, NoTargetsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ScoreVector: TypeAlias = npt.NDArray[np.float64]
Tokenizer: TypeAlias = "PreTrainedTokenizerBase"


@dataclass(frozen=True)
class Item:
    """One scored unit of a task: a question, a document, a prompt."""

    id: str  # 16 hex digits, made from the content; twins after the first get #2, #3, ...
    task: str


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


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What is known of a task without a model.

    Args:
        task: The name to show; also the ``task`` of every item.
        unit: What a score counts, such as ``exact_match``.
        higher_is_better: Whether a larger score is a better one.
        items: All items, in an order that never changes; ids are unique.
        sizes: One positive number per item, what it counts in the task's mean; None: all the same.
        reported: Increasing function from that mean to the number the task reports.
        chance: Score of guessing, in [0, 1]; None where that is not known.
        documents: One id per item, unique, made of its document alone: equal documents of different
            tasks come into the same pool.
        notice: One sentence that whoever reads the study's result must know, or nothing.
        measured: Whether scores are measured times, which no run gives twice.

    Raises:
        EvaluationError: They contradict each other, or one is out of its range.
    """

    task: str
    unit: str
    higher_is_better: bool
    items: tuple[Item, ...]
    sizes: tuple[float, ...] | None = None
    reported: Callable[[float], float] = float
    chance: float | None = None
    documents: tuple[str, ...] | None = None
    notice: str = ""
    measured: bool = False

    def __post_init__(self) -> None:
        self._refuse_twins("items", [item.id for item in self.items])
        self._refuse_twins("documents", self.documents or ())
        others = {item.task for item in self.items} - {self.task}
        if others:
            raise EvaluationError(f"{self.task}: has items of the task {min(others)!r}")
        for name, listed in (("sizes", self.sizes), ("documents", self.documents)):
            if listed is not None and len(listed) != len(self.items):
                raise EvaluationError(
                    f"{self.task}: expected one of `{name}` for each of {len(self.items)} items, "
                    f"got {len(listed)}"
                )
        odd = [size for size in self.sizes or () if not 0 < size < math.inf]
        if odd:
            raise EvaluationError(f"{self.task}: `sizes` must be above 0, got {odd[0]}")
        if self.chance is not None and not 0 <= self.chance <= 1:
            raise EvaluationError(f"{self.task}: `chance` must be in [0, 1], got {self.chance}")

    def _refuse_twins(self, name: str, ids: Sequence[str]) -> None:
        id_, times = next(iter(Counter(ids).most_common(1)), ("", 0))
        if times > 1:
            raise EvaluationError(f"{self.task}: {times} of its {name} have the id {id_!r}")


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

    def unfit(self, model: LiveModel, which: Sequence[int]) -> Mapping[int, str]:
        """Return which of some items the model cannot take, and why; where that is not known, none.

        Args:
            model: Asked for its window, not for an answer.
            which: Positions in ``items``, any order, repeats allowed.
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
        EvaluationError: It is not one float64 per position asked for.
        NonFiniteError, IndexError: See ``Evaluator.score``.
    """
    found: object = evaluator.score(model, which)
    rule = f"{evaluator.task}: expected {len(which)} scores as a float64 array, got"
    if not isinstance(found, np.ndarray):
        raise EvaluationError(f"{rule} {type(found).__name__}")
    if found.dtype != np.float64 or found.shape != (len(which),):
        raise EvaluationError(f"{rule} {found.dtype} of shape {found.shape}")
    return found


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


def items_of(task: str, docs: Iterable[object]) -> tuple[Item, ...]:
    """Make the items of a task's documents, in their order.

    An id depends on the task's name and the document's content, not on its place: SHA-256 over
    both as canonical JSON, first 16 hex digits. A document that occurs twice gives ``X`` and
    ``X#2``.

    Args:
        task: The task's name.
        docs: The documents, whatever JSON can write; other values count by their ``str``.
    """
    seen: Counter[str] = Counter()
    items = []
    for doc in docs:
        content = hashlib.sha256(canonical([task, doc])).hexdigest()[:16]
        seen[content] += 1
        twin = f"#{seen[content]}" if seen[content] > 1 else ""
        items.append(Item(id=content + twin, task=task))
    return tuple(items)


def canonical(value: object) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return text.encode("utf-8", "surrogatepass")


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

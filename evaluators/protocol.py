"""What crosses the evaluators' border: items and scores as plain values, the model as it is."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ScoreVector: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Item:
    """One scored unit of a task: a question, a document, a prompt."""

    id: str  # 16 hex digits, made from the content; twins after the first get #2, #3, ...
    task: str

    @property
    def content(self) -> str:
        """The id without its twin number: equal for items of equal content."""
        return self.id.partition("#")[0]


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
    tokenizer: PreTrainedTokenizerBase
    batch_size: int
    engine: Engine


class Evaluator(Protocol):
    """A live model in, one score per item out. It knows nothing of averages, subsets or trials.

    An evaluator may also have these attributes; each has a default that fits most:

        failures   item id -> why it has no score, of the latest call of ``score``; {}
        measured   whether scores are measured times, which no run gives twice; False
        sizes      one positive number per item, what it counts in the task's mean; all the same
        reported   increasing function from that mean to the number the task reports; as it is
        chance     score of guessing, in [0, 1); None where that is not known; None
        documents  one id per item, unique, made of its document alone: equal documents of
                   different tasks come into the same pool; None
        notice     one sentence that whoever reads the study's result must know; ""
    """

    @property
    def task(self) -> str:
        """The name to show; also the ``task`` of every item."""
        ...

    @property
    def unit(self) -> str:
        """What a score counts, such as ``exact_match``."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger score is a better one."""
        ...

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, in an order that never changes; ids are unique."""
        ...

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
        ...

    def fingerprint(self) -> str:
        """Name everything but the model and its engine that could change a score."""
        ...


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

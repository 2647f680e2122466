"""What is known of a task without a model: its items, and how their scores are to be read."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from evaluators.clusters import content, united
from merge_core.errors import EvaluationError


@dataclass(frozen=True)
class Item:
    """One scored unit of a task: a question, a document, a prompt."""

    id: str  # 16 hex digits, made from the content; twins after the first get #2, #3, ...
    task: str


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
        clusters: One id per item; items with one id are not independent of each other: questions on
            one passage, turns of one conversation, paraphrases. None: an item's content alone, so
            that twins are one cluster.
        clustered_by: The key that decides ``clusters``, to show, or nothing.
        exact: Whether every item's score is the same number of the whole model, known without
            sampling, such as how many parameters it has.
        bounds: Least and largest score that there can be by the metric's definition; None where
            that is not known.
        binary: Whether a score is 0 or 1 by the metric's definition.
        source: The public data set that the items come from, by its name on the hub or its
            address; "": they are the user's own; None: that is not known.

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
    clusters: tuple[str, ...] | None = None
    clustered_by: str = ""
    exact: bool = False
    bounds: tuple[float, float] | None = None
    binary: bool = False
    source: str | None = None

    def __post_init__(self) -> None:
        self._refuse_twins("items", [item.id for item in self.items])
        self._refuse_twins("documents", self.documents or ())
        others = {item.task for item in self.items} - {self.task}
        if others:
            raise EvaluationError(f"{self.task}: has items of the task {min(others)!r}")
        for name in ("sizes", "documents", "clusters"):
            listed = getattr(self, name)
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
        self._check_scores()

    @cached_property
    def cluster_ids(self) -> tuple[str, ...]:
        """One id per item, the same where items are not independent: ``clusters`` and twins."""
        contents = [content(item.id) for item in self.items]
        return tuple(contents) if self.clusters is None else united(self.clusters, contents)

    def _check_scores(self) -> None:
        if self.bounds is not None:
            low, high = self.bounds
            if not -math.inf < low < high < math.inf:
                raise EvaluationError(
                    f"{self.task}: `bounds` must be two finite numbers, the lower one first, "
                    f"got {low:g} and {high:g}"
                )
        if self.binary and self.bounds != (0, 1):
            raise EvaluationError(f"{self.task}: `binary` needs `bounds` of 0 and 1")
        if self.exact and self.measured:
            raise EvaluationError(f"{self.task}: what is `measured` is not `exact`")

    def _refuse_twins(self, name: str, ids: Sequence[str]) -> None:
        id_, times = next(iter(Counter(ids).most_common(1)), ("", 0))
        if times > 1:
            raise EvaluationError(f"{self.task}: {times} of its {name} have the id {id_!r}")


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

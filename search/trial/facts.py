"""How a task's scores are read without its evaluator: stored, so that no task must be opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from evaluators.protocol import Evaluator
from merge_core.errors import Problems, StorageError
from merge_core.validation import Number, StrictModel, read


class Facts(StrictModel):
    """What a study stores of a task, see ``TaskFacts``.

    Args:
        unit: What a score counts.
        higher_is_better: Whether a larger score is a better one.
        exact: Whether every item's score is the same number.
        logarithm: Whether tables show an increasing function of the mean, such as a perplexity.
        sizes: What each report item counts, in the pool's order; None: all the same.
        bounds: Least and largest score that there can be; None: that is not known.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    unit: str
    higher_is_better: bool
    exact: bool = False
    logarithm: bool = False
    sizes: list[Number] | None = None
    bounds: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None

    @classmethod
    def of(cls, evaluator: Evaluator, which: Sequence[int]) -> Facts:
        """Return the facts of a task whose report items are at these places."""
        sizes = evaluator.sizes
        return cls(
            unit=evaluator.unit,
            higher_is_better=evaluator.higher_is_better,
            exact=evaluator.exact,
            logarithm=evaluator.reported is not float,
            sizes=None if sizes is None else [sizes[i] for i in which],
            bounds=None if evaluator.bounds is None else [*evaluator.bounds],
        )

    @classmethod
    def read(cls, stored: Any, task: str) -> Facts:
        """Return what was stored.

        Raises:
            StorageError: It is damaged.
        """
        problems: Problems = []
        found = read(cls, stored, f"facts.{task}", problems)
        if found is None or problems:
            why = "; ".join(f"{path}: {rule}" for path, rule in problems)
            raise StorageError(f"what the study has stored of its tasks is damaged: {why}")
        return found

    def plain(self) -> dict[str, Any]:
        """Return them as JSON values; what is as usual is left out."""
        return self.model_dump(exclude_defaults=True)

    @property
    def words(self) -> str:
        """The unit of a score, in words."""
        return f"logarithm of {self.unit}" if self.logarithm else self.unit


def stored_facts(about: Mapping[str, Any], summary: Mapping[str, Any] | None, task: str) -> Facts:
    """Return what a study has stored of a task; of an earlier version's what its summary says."""
    stored = about.get("facts", {}).get(task)
    if stored is not None:
        return Facts.read(stored, task)
    words = str(((summary or {}).get("units") or {}).get(task, ""))
    better = not words.endswith("lower is better")
    return Facts(unit=words.partition(",")[0] or "score", higher_is_better=better)

"""A study that is not finished, in words: what is best so far, beside what needs no search.

Search items steer the search, so the best value on them is too high; nothing is proven by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.report.who import best_so_far
from search.space.starting_points import BASE, PARENT, UNIFORM
from search.storage.study_record import Record
from search.trial.trial import Trial


@dataclass(frozen=True)
class SoFar:
    """What there is.

    Args:
        study: Its name.
        trials: How many are settled, baselines included.
        failed: Of these, how many failed.
        items: Search items, over all tasks.
        best: The complete trial with the best search value; None: none is complete.
        candidates: Name -> trial: base, parents, the uniform merge, as far as complete.
    """

    study: str
    trials: int
    failed: int
    items: int
    best: Trial | None
    candidates: dict[str, Trial]

    @classmethod
    def of(cls, record: Record) -> SoFar:
        """Return it of a study."""
        return cls.of_trials(record.name, record.trials, record.about or {})

    @classmethod
    def of_trials(cls, name: str, trials: Sequence[Trial], about: Mapping[str, Any]) -> SoFar:
        """Return it of a study's name, its trials, and what they share."""
        whole = [trial for trial in trials if trial.state == "complete"]
        named = {trial.baseline: trial for trial in whole if trial.baseline is not None}
        pool = about.get("pools", {}).get("search", {})
        return cls(
            name,
            len(trials),
            sum(trial.state == "failed" for trial in trials),
            sum(one["items"] for one in pool.values()),
            best_so_far(trials),
            {n: t for n, t in named.items() if n in (BASE, UNIFORM) or n.startswith(PARENT)},
        )

    @property
    def best_parent(self) -> Trial | None:
        """The parent with the best search value."""
        return best_so_far(t for name, t in self.candidates.items() if name.startswith(PARENT))

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        best = self.best
        return {
            "finished": False,
            "trials": self.trials,
            "failed": self.failed,
            "search_items": self.items,
            "trial": None if best is None else best.number,
            "search": None if best is None else {"mean": best.value, "stderr": best.stderr},
            "recipe": None if best is None else best.recipe.plain(),
            "candidates": {
                name: {"trial": trial.number, "mean": trial.value, "stderr": trial.stderr}
                for name, trial in self.candidates.items()
            },
            "sentences": self.sentences(),
        }

    def sentences(self) -> list[str]:
        """Return what is to be said of it, plain English."""
        failed = f", {self.failed} of them failed" if self.failed else ""
        settled = f"{self.trials} trials are settled{failed}"
        first = f"The study is not finished: {settled}. Run it again, and it goes on."
        if self.best is None:
            return [first, "None is complete, so there is no best one; see `mergetune trials`."]
        return [first, *self.verdict(), self._warning()]

    def verdict(self) -> list[str]:
        """Return what the best trial is above, and what it is not; nothing where none is best."""
        return [] if self.best is None else beaten(self.best, self._rivals())

    def _rivals(self) -> list[tuple[str, Trial]]:
        found = [("the uniform merge", self.candidates.get(UNIFORM))]
        parent = self.best_parent
        found.append((f"the best parent ({parent.baseline})" if parent else "", parent))
        return [(role, trial) for role, trial in found if trial is not None]

    def _warning(self) -> str:
        return (
            f"These are values on the {self.items:,} items that steer the search, so the best is "
            "too high; the report's, on other items, is the one that holds."
        )


def beaten(best: Trial, rivals: Sequence[tuple[str, Trial]]) -> list[str]:
    """Return which rivals the best trial is above, and which it is not, in a sentence or two."""
    value = best.value or 0.0
    above, others = [], []
    for role, trial in rivals:
        same = trial.number == best.number or trial.weights_digest == best.weights_digest
        gain = value - (trial.value or 0.0)
        if same or gain <= 0:
            others.append(f"No candidate beat {role} so far ({trial.value:.4f}).")
        else:
            above.append(f"{gain:.4f} above {role}")
    name = f"trial {best.number}" + ("" if best.baseline is None else f" ({best.baseline})")
    said = f"Best so far: {name}, {value:.4f}{', '.join(['', *above])}."
    return [said, *others]

"""What a page is made from: what is stored of a study, and no parent, no task, no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from search.report.measure import SELECT
from search.report.select import FRONT
from search.report.summary import Report
from search.scoring.pools import NAMES
from search.space.starting_points import PARENT, SIMPLE
from search.storage.study_record import Record
from search.trial.trial import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

KINDS = {PARENT: "{} (parent)", SIMPLE: "{} (simple merge)", FRONT: "trial {} (front)"}


@dataclass(frozen=True)
class Found:
    """A study as it is stored.

    Args:
        name: Of the study.
        about: What all its trials share, see ``Record.about``.
        trials: By number.
        distributions: Optuna's, of the knobs that its trials have.
        report: What it found; None: it is not finished.
        samples: Task -> answers of the winner and the best parent, see ``Record.samples``.
        prior: What was taken over from another study, or None.
        price: Of an hour, in the user's money; None: not known.
        argument: How the command line calls the study.
    """

    name: str
    about: Mapping[str, Any]
    trials: Sequence[Trial]
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)
    report: Report | None = None
    samples: Mapping[str, Any] = field(default_factory=dict)
    prior: Any = None
    price: float | None = None
    argument: str = "study.yaml"

    @classmethod
    def of(cls, record: Record, argument: str, price: float | None = None) -> Found:
        """Return what is stored of a study.

        Raises:
            MergeError: Its summary is damaged.
        """
        summary = record.summary
        return cls(
            record.name,
            record.about or {},
            record.trials,
            record.distributions,
            None if summary is None else Report.from_json(summary),
            record.samples,
            record.prior,
            price,
            argument,
        )

    @property
    def winner(self) -> Trial | None:
        """The trial that won."""
        return None if self.report is None else self.trials[self.report.winner.trial]

    @cached_property
    def finalists(self) -> list[Trial]:
        """The finalists of the report; of an earlier version's, who was scored on select items."""
        if self.report is not None and self.report.finalists:
            return [self.trials[one.trial] for one in self.report.finalists]
        return [
            t for t in self.trials if SELECT in t.measured and not t.dropped and t.was_searched()
        ]

    @cached_property
    def scored(self) -> list[Trial]:
        """The trials with a search value."""
        return [t for t in self.trials if t.value is not None]

    @cached_property
    def steered_by(self) -> Mapping[str, str]:
        """Entry -> the metric that scored the search pool in place of its own."""
        score = self.about.get("score") or {}
        return {e["name"]: e["steer"] for e in score.get("entries", ()) if e.get("steer")}

    @cached_property
    def metric(self) -> str:
        """What a search value is, in words."""
        by = ", ".join(dict.fromkeys(self.steered_by.values()))
        return f"search score by {by}" if by else "search score"

    def items(self, pool: str) -> dict[str, int]:
        """Return how many items of each task a pool has; of the pools that are stored."""
        assert pool in NAMES
        return {task: x["items"] for task, x in self.about["pools"].get(pool, {}).items()}

    def states(self) -> dict[str, int]:
        """Return how many trials ended how; baselines are among them."""
        return {**Counter(trial.state for trial in self.trials)}

    def later_than_report(self) -> int:
        """Return how many trials the report does not know."""
        known = len(self.trials) if self.report is None else sum(self.report.trials.values())
        return max(0, len(self.trials) - known)


def shown_name(name: str) -> str:
    """Return the name of a candidate of the report for people: ``models/sort (parent)``."""
    start, _, rest = name.partition(":")
    if rest and f"{start}:" in KINDS:
        return KINDS[f"{start}:"].format(rest)
    return name


def kind_of(trial: Trial, winner: int | None, finalists: set[int]) -> str:
    """Return what a trial is: the class of its dot."""
    if trial.number == winner:
        return "winner"
    if trial.baseline is not None:
        return "baseline"
    if trial.number in finalists:
        return "finalist"
    if trial.state == "stopped":
        return "stopped"
    return "gradient" if trial.gradient is not None else "searched"


def label(trial: Trial) -> str:
    """Return how a trial is called."""
    name = "" if trial.baseline is None else f", {shown_name(trial.baseline)}"
    return f"trial {trial.number}{name}"

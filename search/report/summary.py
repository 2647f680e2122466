"""What a study found: one frozen value, which ``summary.json`` and the terminal show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from merge_core.errors import MergeError, join
from merge_core.json_text import finite
from search.report.race_replay import Replay
from search.scoring.intervals import Estimate
from search.trial.budget import End


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Part):
    """An interval."""

    low: float
    high: float


class Scored(_Part):
    """A candidate on one pool: the study's number, and those of its groups and tasks by name."""

    mean: float
    low: float
    high: float
    groups: dict[str, Estimate] | None = None
    tasks: dict[str, Estimate]
    items: int | None = None  # where they are not all of the pool
    widened: Limits | None = None  # of the winner's report score, where there were several looks

    def of(self, entry: str) -> Estimate:
        """Return the estimate of an entry of the study's score, a group or a task."""
        return {**self.tasks, **(self.groups or {})}[entry]


class Candidate(_Part):
    """A row of the report: its name, such as ``base`` or ``winner``, its trial, its scores."""

    name: str
    trial: int
    report: Scored


Verdict = Literal["better", "worse", "no difference shown"]


class Difference(_Part):
    """The winner minus another candidate, paired; with several objectives, entry by entry too.

    Args:
        verdict: What the interval, where there were several looks the widened one, shows.
        items_needed: Report items that would show what was seen, where that was not shown.
        widened: Limits that hold for all looks at the report items together (Bonferroni).
    """

    estimate: float
    low: float
    high: float
    entries: dict[str, Difference] | None = None
    verdict: Verdict | None = None
    items_needed: int | None = None
    widened: Limits | None = None


class SearchScore(_Part):
    """The search value, too high by design; entry -> the metric that steered it, if not its own."""

    mean: float
    stderr: float | None = None  # of finalists; None where one item tells nothing of it
    steered_by: dict[str, str] | None = None


class Winner(_Part):
    """The winner, and the differences to the candidates that there are."""

    trial: int
    recipe_digest: str
    weights_digest: str
    search: SearchScore
    select: Scored
    report: Scored
    minus_best_parent: Difference | None = None
    minus_best_simple: Difference | None = None
    minus_uniform: Difference | None = None
    minus_base: Difference | None = None


class Finalist(_Part):
    """A finalist, its evidence, and how much its search score had promised.

    Args:
        trial: Its number.
        search: Its search value.
        select: Its scores on the select pool.
        shrunken: What both come to, see ``shrinkage``; the largest wins.
        report: Its scores on the report pool: of the winner on all of it, of others on a part as
            large as the select pool.
        optimism: Search minus report; None where other metrics steer, or it was not measured.
    """

    trial: int
    search: SearchScore
    select: Scored
    shrunken: float
    report: Scored | None = None
    optimism: float | None = None


class Looks(_Part):
    """How many winners were measured on these report items, this one included; who the others were.

    Each of these looks may have decided what was done next, so that limits for all of them together
    are at a level of ``1 - 0.05 / count`` (Bonferroni).
    """

    count: int
    why: list[str]


class Cost(_Part):
    """What a study cost.

    Args:
        items_scored: Evaluations of an item.
        items_full: What they were, had nothing been reused nor stopped.
        seconds: What they were for -> seconds of work, of all workers together.
        workers: How many the last run had, where it had several.
        busy: Share of the time that they were at work, in [0, 1].
    """

    items_scored: int
    items_full: int
    seconds: dict[str, float]
    workers: int | None = None
    busy: float | None = None


class Race(_Part):
    """What racing saved, and what it costs.

    Args:
        margin, error: Of the race.
        items_saved: Search items that stopped candidates did not see.
        again: Trials that were scored whole, raced again.
    """

    margin: float
    error: float
    items_saved: int
    again: Replay


class Report(_Part):
    """A finished study; its fields are the keys of ``summary.json``, see ``summarize``."""

    format: Literal[1] = 1
    study: str
    seed: int
    trials: dict[str, int]  # by how they ended
    ended: End | None = None  # why no more were searched
    pools: dict[str, int]  # number of items
    score: dict[str, Any]  # see ``Aggregate.plain``
    units: dict[str, str] | None = None  # of tasks' scores, and which way is better, in words
    notices: list[str]
    sentences: list[str] = []  # the verdict in words, on the search as a whole first
    candidates: list[Candidate]
    best_parent: str
    best_simple: str | None = None  # of the merges that no search made, by search items
    earlier_winners: list[int] | None = None  # of reports before this one, if the search went on
    looks: Looks | None = None
    winner: Winner
    finalists: list[Finalist] = []  # best first
    race: Race | None = None  # where candidates raced
    cost: Cost

    @property
    def entries(self) -> list[str]:
        """Names of the entries of the study's score."""
        return [entry["name"] for entry in self.score["entries"]]

    def to_json(self) -> dict[str, Any]:
        """Return what ``summary.json`` holds; what there is none of has no key.

        Limits that are infinite are None.
        """
        found: dict[str, Any] = finite(self.model_dump(exclude_none=True))
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        """Return what ``to_json`` wrote.

        Raises:
            MergeError: It did not, or that is damaged.
        """
        try:
            return cls.model_validate(_with_limits(data))
        except ValidationError as error:
            first = error.errors()[0]
            raise MergeError(
                f"the study's summary is damaged: {reduce(join, first['loc'], '')}: "
                f"{first['msg']}; run the study again, which writes it anew"
            ) from error


def _with_limits(data: Any) -> Any:
    """Give limits that JSON could not hold their numbers again."""
    if isinstance(data, list):
        return [_with_limits(value) for value in data]
    if not isinstance(data, Mapping):
        return data
    limits = {"low": -math.inf, "high": math.inf}
    return {
        key: limits[key] if value is None and key in limits else _with_limits(value)
        for key, value in data.items()
    }

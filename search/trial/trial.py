"""A settled trial: what was built, and what was measured of it on each pool. Plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from merge_core.recipe.schema import Recipe
from search.samplers.steps import Measured
from search.space.starting_points import MEAN

State = Literal["complete", "stopped", "failed", "unscored"]


@dataclass(frozen=True)
class Measurement:
    """What is known of a candidate on one pool.

    Args:
        scores: Task -> one score per item, in the pool's order: of all items, or of the first ones
            where a race was lost; empty for a failed trial.
        seconds: ``build``, ``model`` (scoring) and, on the search pool, ``other`` and what else a
            trial did.
        error: Traceback of a candidate that was dropped on this pool.
        asked: ``threads`` and ``batch_size`` of the run that measured it, where these are others
            than those of the run that settled the trial.
    """

    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    asked: Mapping[str, int] = field(default_factory=dict)

    @property
    def items(self) -> int:
        """Number of items with a score."""
        return sum(len(scores) for scores in self.scores.values())


@dataclass(frozen=True)
class Fitted:
    """What the training of a mixture's routers was.

    Args:
        steps: How many.
        items: What they cost, in evaluations of an item.
        before, after: Loss of the held-out items, in nats, with routers of zeros and with these.
    """

    steps: int
    items: int
    before: float
    after: float


@dataclass(frozen=True)
class Trial:
    """A settled trial.

    Args:
        number: From 0, in the order of settling.
        state: ``complete``; ``stopped``: worse than the best by what its first items show;
            ``failed``; or ``unscored``: a step of a search by gradient between two that are scored.
        recipe: What was built.
        baseline: Its name, for a trial that no sampler asked for.
        params: The knobs' values; empty for recipes outside the space.
        weights_digest: Of the candidate; "" for a failed trial.
        value: What the tasks make together on the search pool, higher is better; of a stopped
            trial an estimate, never above the best that it was raced against; None: failed.
        values: The objectives, higher is better, of a study that keeps its entries apart.
        stderr: Standard error of ``value``.
        same_as: The earlier trial with the same weights, whose scores were taken over.
        error: Traceback of a failed trial.
        gradient: What a step of a search by gradient has measured.
        fitted: What the training of its routers was, where a mixture's were trained.
        measured: Pool -> what was measured there; ``search`` for every trial.
    """

    number: int
    state: State
    recipe: Recipe
    baseline: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    weights_digest: str = ""
    value: float | None = None
    values: tuple[float, ...] = ()
    stderr: float | None = None
    same_as: int | None = None
    error: str | None = None
    gradient: Measured | None = None
    fitted: Fitted | None = None
    measured: Mapping[str, Measurement] = field(default_factory=lambda: {"search": Measurement()})

    def was_searched(self) -> bool:
        """Return whether it is no baseline."""
        return self.baseline is None

    def was_drawn(self) -> bool:
        """Return whether a sampler drew it: it is neither a baseline nor a step by gradient."""
        return self.baseline is None and self.gradient is None

    def is_mean(self) -> bool:
        """Return whether it is the mean of a generation, which no budget counts."""
        return (self.baseline or "").startswith(MEAN)

    @property
    def search(self) -> Measurement:
        """What was measured on the search pool."""
        return self.measured["search"]

    @property
    def cost(self) -> int:
        """What the search pool's items cost, in evaluations of an item; twins cost nothing."""
        scored = self.search.items if self.same_as is None else 0
        extra = [x.items for x in (self.gradient, self.fitted) if x is not None]
        return scored + sum(extra)

    @property
    def reason(self) -> str:
        """Why a trial failed: kind and first line of the error, without the traceback."""
        return reason_of(self.error)

    @property
    def dropped(self) -> str:
        """On which later pool it failed, and why; nothing where it did not."""
        found = {pool: reason_of(x.error) for pool, x in self.measured.items() if x.error}
        return next((f"on the {pool} pool: {why}" for pool, why in found.items()), "")

    def row(self) -> dict[str, Any]:
        """Return the trial as ``mergetune trials --json`` prints it."""
        step = vars(self.gradient) if self.gradient else {}  # all but a slope for each knob
        return {
            "number": self.number,
            "state": self.state,
            "baseline": self.baseline,
            "params": dict(self.params),
            "recipe_digest": self.recipe.digest(),
            "weights_digest": self.weights_digest,
            "value": self.value,
            "stderr": self.stderr,
            "items": self.search.items,
            **({"gradient": {k: x for k, x in step.items() if k != "slopes"}} if step else {}),
            **({"routers": vars(self.fitted)} if self.fitted else {}),
            **({"values": list(self.values)} if self.values else {}),
        }


def reason_of(error: str | None) -> str:
    """Return kind and first line of the error that a traceback ends with."""
    last = (error or "").rpartition("Traceback (most recent call last):\n")[2]
    return next((line for line in last.splitlines() if not line.startswith(" ")), "")


def kind_of(error: str | None) -> str:
    """Return the name of the class of what a traceback ends with."""
    return reason_of(error).partition(":")[0].rpartition(".")[2]

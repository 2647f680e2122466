"""Trial -> recipe -> model -> scores: the only file that knows all three layers.

A failed candidate (out of memory, weights or scores that are not finite, a task that raises) is a
failed trial with its traceback kept, and the search goes on. It never gets a score of 0.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from merge_core.recipe.schema import Recipe
from search.storage.study_record import Scores, Settled


class Bench(Protocol):
    """What a trial needs of a workbench."""

    def build(self, recipe: Recipe) -> str:
        """Build a recipe and return its weights digest."""
        ...

    def score(self, pool: str) -> Scores:
        """Score what was built on a pool."""
        ...

    def value(self, scores: Mapping[str, Sequence[float]], pool: str) -> tuple[float, float]:
        """Return value and standard error."""
        ...

    def values(self, scores: Mapping[str, Sequence[float]], pool: str) -> tuple[float, ...]:
        """Return the objectives, or nothing where there is one: the value."""
        ...


def settle(
    bench: Bench,
    recipe: Recipe,
    *,
    number: int,
    earlier: Sequence[Settled],
    baseline: str | None = None,
    params: Mapping[str, Any] | None = None,
) -> Settled:
    """Build and score one recipe on the search pool.

    A recipe, or weights, that an earlier trial had are not scored again.

    Args:
        bench: Builds and scores.
        recipe: What to build.
        number: Of the trial.
        earlier: All settled trials.
        baseline: Name, if no sampler asked for it.
        params: The knobs' values.
    """
    clock = _Clock()
    common: dict[str, Any] = {
        "number": number,
        "recipe": recipe,
        "baseline": baseline,
        "params": params or {},
    }
    done = [trial for trial in earlier if trial.state == "complete"]
    try:
        known = next((t for t in done if t.recipe == recipe), None)
        digest = known.weights_digest if known else clock.time("build", lambda: bench.build(recipe))
        known = known or next((t for t in done if t.weights_digest == digest), None)
        scores = known.scores if known else clock.time("model", lambda: bench.score("search"))
        (value, stderr), values = bench.value(scores, "search"), bench.values(scores, "search")
    except Exception:
        return Settled(
            state="failed", error=traceback.format_exc(), seconds=clock.seconds(), **common
        )
    return Settled(
        state="complete",
        weights_digest=digest,
        scores=scores,
        value=value,
        values=values,
        stderr=stderr,
        same_as=None if known is None else known.number,
        seconds=clock.seconds(),
        **common,
    )


class _Clock:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._spent = {"build": 0.0, "model": 0.0}

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            return work()
        finally:
            self._spent[name] += time.perf_counter() - start

    def seconds(self) -> dict[str, float]:
        other = time.perf_counter() - self._start - sum(self._spent.values())
        return {**{k: round(v, 4) for k, v in self._spent.items()}, "other": round(other, 4)}

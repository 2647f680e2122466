"""Search by gradient: where the next step goes, by the slopes that the steps so far have measured.

A candidate is differentiable in its factors. A step measures, at its point, the slopes of the loss
of some search items' right answers, and Adam (arXiv:1412.6980) goes on from there:

    u       the point, every knob's range as [0, 1], log knobs by their logarithm
    g       dL / du of a mini-batch of the training items
    u <- clip(u - rate * m / (sqrt(v) + eps), 0, 1)      m, v: Adam's means of g and g^2

A step learns from the next training items of the search pool (``batches``). Every ``LOOK`` steps
the loss of the held-out items is measured. After ``PATIENCE`` looks without a better one the search
goes back to the best look with a third of the rate; after ``CUTS`` such cuts it is over. So neither
rate nor length is chosen by hand. Its last point is the mean of the second half of all points
(Polyak and Juditsky, 1992).

Like every sampler here it keeps nothing: a point is a function of the start, the seed and what the
steps before it have measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from optuna.distributions import FloatDistribution

from merge_core.errors import ParameterError
from search.samplers.batches import Batches
from search.samplers.cube import Cube, Vector
from search.samplers.registry import Space
from search.samplers.steps import Measured, Step

RATE = 0.05  # of a knob's range, in a step
KEEP, KEEP_SQUARE, TINY = 0.9, 0.999, 1e-8  # Adam's own
LOOK = 5  # steps from one look at the held-out items to the next
PATIENCE = 3  # looks without a better one
CUTS = 2  # of the rate
BETTER = 1e-3  # of the loss: less is no progress


class GradientSearch:
    """Adam on the knobs of a space that have slopes; the others stay at the start.

    Args:
        space: Knob name -> distribution.
        smooth: Names of the knobs to move, all with ranges, at least one.
        start: Knob name -> value of the first point.
        clusters: Task -> the cluster of each of its items in the search pool, at least one.
        seed: The study's; decides which items are held out, and which a step takes.

    Raises:
        ParameterError: No knob moves.
    """

    def __init__(
        self,
        space: Space,
        smooth: Set[str],
        start: Mapping[str, Any],
        clusters: Mapping[str, Sequence[str]],
        seed: int,
    ) -> None:
        self._cube = _cube(space, smooth & start.keys())
        self._start, self._batches = dict(start), Batches(clusters, seed)

    def next(self, done: Sequence[Measured], most: int) -> Step | None:
        """Return the next step, or None where the search is over.

        Args:
            done: What the steps so far have measured, in their order.
            most: Steps that there may be, the last one included.
        """
        path = _Path(self._cube, self._cube.start(self._start))
        for measured in done:
            path.go(measured)
        if path.ended or len(done) >= most:
            return None
        if done and (path.over or len(done) == most - 1):
            return Step(self._point(path.mean), {}, {}, scored=True, mean=True)
        number = sum(not measured.mean for measured in done)
        looks = number % LOOK == 0
        point, held = self._point(path.at), self._batches.held if looks else {}
        return Step(point, self._batches.of(number), held, scored=looks)

    def _point(self, u: Vector) -> dict[str, Any]:
        return {**self._start, **self._cube.values(u)}


class _Path:
    """Where the steps so far have led: the point, Adam's means, and the best look."""

    def __init__(self, cube: Cube, start: Vector) -> None:
        self._cube, self.at = cube, start
        self.over = self.ended = False
        self._points: list[Vector] = []
        self._rate, self._cuts, self._worse = RATE, 0, 0
        self._best, self._best_at = math.inf, start
        self._forget()

    @property
    def mean(self) -> Vector:
        """The mean of the second half of the points."""
        half: Vector = np.mean(self._points[len(self._points) // 2 :], axis=0)
        return half

    def go(self, measured: Measured) -> None:
        """Take a step, or go back."""
        if measured.mean:
            self.ended = self.over
            return
        self._points.append(self.at)
        if measured.held_out is not None:
            self._look(measured.held_out)
        if self._worse == PATIENCE or not measured.slopes:
            self._go_back()
        else:
            by_value = np.array([measured.slopes[name] for name in self._cube.names])
            self._move(by_value * self._cube.derivatives(self.at))

    def _look(self, loss: float) -> None:
        if loss < self._best - BETTER * abs(self._best) or self._best == math.inf:
            self._best, self._best_at, self._worse = loss, self.at, 0
        else:
            self._worse += 1

    def _go_back(self) -> None:
        self.at, self._worse = self._best_at, 0
        self.over = self._cuts == CUTS
        self._cuts += 1
        self._rate /= 3
        self._forget()

    def _forget(self) -> None:
        self._means, self._squares, self._steps = 0.0 * self.at, 0.0 * self.at, 0

    def _move(self, slopes: Vector) -> None:
        self._steps += 1
        self._means = KEEP * self._means + (1 - KEEP) * slopes
        self._squares = KEEP_SQUARE * self._squares + (1 - KEEP_SQUARE) * slopes**2
        mean = self._means / (1 - KEEP**self._steps)
        square = self._squares / (1 - KEEP_SQUARE**self._steps)
        self.at = np.clip(self.at - self._rate * mean / (np.sqrt(square) + TINY), 0.0, 1.0)


def _cube(space: Space, smooth: Set[str]) -> Cube:
    free = {n: d for n, d in space.items() if n in smooth and not d.single()}
    numbers = {n: d for n, d in free.items() if isinstance(d, FloatDistribution)}
    if not numbers:
        raise ParameterError("a search by gradient needs a knob with a slope, got none")
    return Cube(numbers)

"""What may be expected of points that no trial has been: a Gaussian process over trials.

Points are compared by what a path is: which layers come before which (so the kernel of two orders
is Mallows': Jiao & Vert, arXiv:1506.08219), which are there and how often, and, where layers
repeat, which follow each other; beside that by their numbers and choices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from search.samplers.coordinates import Coordinates
from search.samplers.cube import Vector
from search.samplers.rows import Hops

MOST = 400  # points that the model is made of: the best, and the last
WIDTHS = (0.3, 0.6, 1.2, 2.4)  # of the kernel, of what two points differ on average
NOISES = (1e-3, 3e-2, 0.3)  # shares of the variance


class Screen:
    """A model of the losses of points.

    Args:
        rows: The rows of hops.
        coordinates: Of all knobs.
        points: At least 2, a value for every knob each.
        losses: (n,); only their order counts.
    """

    def __init__(
        self,
        rows: Sequence[Hops],
        coordinates: Coordinates,
        points: Sequence[Mapping[str, Any]],
        losses: Vector,
    ) -> None:
        self._rows, self._coordinates = rows, coordinates
        kept = _kept(losses)
        there = [points[i] for i in kept]
        self._repeats = [any(_repeats(row, point) for point in there) for row in rows]
        self._parts = self._features(there)
        distances = [_squared(part, part) for part in self._parts]
        self._means = [float(d.mean()) or 1.0 for d in distances]
        together = self._together(distances)
        ranks = rankdata(losses[kept])
        self._targets = ndtri((ranks - 0.5) / len(ranks))
        self._fit(together)

    def best(self, points: Sequence[Mapping[str, Any]]) -> int:
        """Return the place of the point of which most improvement is expected."""
        pairs = zip(self._features(points), self._parts, strict=True)
        kernel = np.exp(-self._together([_squared(a, b) for a, b in pairs]) / self._width)
        mean = kernel @ self._weights
        spread = 1 - (kernel.T * cho_solve(self._factor, kernel.T)).sum(0)
        deviation = np.sqrt(np.maximum(spread * self._scale, 1e-12))
        better = (self._targets.min() - mean) / deviation
        density = np.exp(-(better**2) / 2) / np.sqrt(2 * np.pi)
        return int(np.argmax(deviation * (better * ndtr(better) + density)))

    def _fit(self, together: Vector) -> None:
        """Take the width and the noise of the largest likelihood."""
        count, best = len(self._targets), -np.inf
        for width in WIDTHS:
            for noise in NOISES:
                kernel = np.exp(-together / width) + noise * np.eye(count)
                factor = cho_factor(kernel, lower=True)
                weights = cho_solve(factor, self._targets)
                scale = max(float(self._targets @ weights) / count, 1e-12)  # equal losses: 0
                told = -count * np.log(scale) / 2 - np.log(np.diag(factor[0])).sum()
                if told > best:
                    best, self._width, self._factor = told, width, factor
                    self._weights, self._scale = weights, scale

    def _together(self, distances: Sequence[Vector]) -> Vector:
        """Return the sum of squared distances, each as a share of what trials differ by."""
        found: Vector = sum(
            (d / mean for d, mean in zip(distances, self._means, strict=True)), np.zeros(())
        )
        return found / len(distances)

    def _features(self, points: Sequence[Mapping[str, Any]]) -> list[Vector]:
        """Return (n, d) numbers of points, part by part."""
        parts: list[Vector] = []
        for row, repeats in zip(self._rows, self._repeats, strict=True):
            of_points = [_of_row(row, point, follows=repeats) for point in points]
            parts += [np.array(part) for part in zip(*of_points, strict=True)]
        taken = {name for row in self._rows for name in row.names}
        cube, choices = self._coordinates.cube, self._coordinates.choices
        table = self._coordinates.points([dict(point) for point in points])
        numbers = table[:, [i for i, name in enumerate(cube.names) if name not in taken]]
        places = [
            (table[:, len(cube) + i], len(kinds))
            for i, (name, kinds) in enumerate(choices.items())
            if name not in taken
        ]
        chosen = [(column[:, None] == np.arange(count)) * 1.0 for column, count in places]
        return [
            *parts,
            *([numbers] if numbers.size else []),
            *([np.hstack(chosen)] if chosen else []),
        ]


def _repeats(row: Hops, point: Mapping[str, Any]) -> bool:
    layers = [gene.layer for gene in row.read(point)]
    return len(set(layers)) < len(layers)


def _of_row(row: Hops, point: Mapping[str, Any], follows: bool) -> list[Vector]:
    """Return how often layers are there, whose first comes before whose, their factors.

    With ``follows`` also which layers follow each other: where a layer's second place is.
    """
    place = {layer: i for i, layer in enumerate(row.layers)}
    genes = row.read(point)
    order = np.array([place[gene.layer] for gene in genes], dtype=int)
    count = len(row.layers)
    there = np.bincount(order, minlength=count).astype(np.float64)
    first = np.full(count, -1)
    first[order[::-1]] = np.arange(len(order))[::-1]
    known = (first[:, None] >= 0) & (first >= 0)
    before = np.where(known, np.sign(first[:, None] - first), 0)[np.triu_indices(count, 1)]
    found = [there, before.astype(np.float64)]
    if follows:
        pairs = np.zeros((count + 2, count + 2))
        ends = np.array([count, *order, count + 1])
        pairs[ends[:-1], ends[1:]] = 1.0
        found.append(pairs.ravel())
    if row.scales:
        scales = np.full(count, row.usual, dtype=np.float64)
        scales[order] = [gene.scale for gene in genes]
        found.append(scales)
    return found


def _kept(losses: Vector) -> npt.NDArray[np.int64]:
    """Return the places of the points that the model is made of, in order."""
    count = len(losses)
    if count <= MOST:
        return np.arange(count)
    best = np.argsort(losses, kind="stable")[: MOST // 2]
    rest = np.setdiff1d(np.arange(count), best)[-(MOST - MOST // 2) :]
    return np.sort(np.concatenate([best, rest]))


def _squared(a: Vector, b: Vector) -> Vector:
    """Return (n, m) squared distances of (n, d) and (m, d) points."""
    found: Vector = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.maximum(found, 0.0)

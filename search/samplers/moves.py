"""An evolution by structured moves, for layer paths: the children of good trials, screened.

A child is a good trial after one or several moves: of a row of hops a block is inserted, dropped,
repeated, swapped or moved, a layer replaced by that of another model, or the row is crossed with
another good trial's (``rows``); flags are turned, numbers take a step of a normal distribution,
choices are drawn anew. Of many such children that no trial has been, the one is asked for that a
Gaussian process over all trials expects most of (``screen``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import rankdata

from search.samplers.coordinates import Coordinates
from search.samplers.cube import Vector
from search.samplers.registry import Space, Start
from search.samplers.rows import Hops, Random, crossed, moved, rows_of_flags, rows_of_hops
from search.samplers.screen import Screen
from search.samplers.whole_points import WholePoints

PARENTS = 10  # good trials that have children
CHILDREN = 120  # that are screened for one that is asked for
UNSCREENED = 0.05  # of the asks: whatever the model thinks
STARTUP = 10  # trials at random where there is nothing to start from
CROSSED = 0.15  # of the children
LEAST = 3  # distinct points that a model is made of
Point = dict[str, Any]


class MovesSampler(WholePoints):
    """Draws a child of the best trials.

    Trials that are complete and have parameters of this space alone count, baselines included: what
    was measured is known, whoever proposed it. With several objectives each draw weighs them anew
    and looks at the worst weighed one (augmented Chebyshev: Knowles, ParEGO, 2006), so good trials
    are those near the front. The draw depends on nothing but the arguments and the trials.

    Args:
        space: Knob name -> distribution.
        start: Knob name -> value of a point to begin with; names may be missing.
        seed: Of this one draw, in [0, 2**32).

    Attributes:
        mended: Point -> the point that it counts as, where several stand for one candidate.
    """

    def __init__(self, space: Space, start: Start, seed: int) -> None:
        super().__init__("moves", {name: d for name, d in space.items() if not d.single()})
        self._names, self._start = frozenset(space), start
        self._random = Random(seed)
        self._coordinates = Coordinates(tuple(self._free.items()))
        middle = self._coordinates.cube.values(self._coordinates.cube.start(None))
        first = {name: choices[0] for name, choices in self._coordinates.choices.items()}
        known = {name: x for name, x in (start or {}).items() if name in self._free}
        self._usual: Point = {**middle, **first, **known}
        self._hops = rows_of_hops(self._free)
        self._flags = rows_of_flags(self._free)
        self.mended: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw one value of every free knob; of the arguments only the study is looked at."""
        if not self._free:
            return {}
        there = [t for t in study.get_trials(deepcopy=False) if t.params.keys() <= self._names]
        there = sorted((t for t in there if t.params), key=lambda t: t.number)
        seen = {self._key(self._point(t.params)) for t in there}
        told = [t for t in there if t.state == TrialState.COMPLETE]
        points, values = self._known(told, study)
        if self._start is None and len(points) < STARTUP:
            return self._anywhere()
        order = np.argsort(values, kind="stable")[:PARENTS]
        children = self._children([points[i] for i in order] or [self._point(self._usual)], seen)
        if len(points) < LEAST or self._random.rand() < UNSCREENED:
            return children[0]
        return children[Screen(self._hops, self._coordinates, points, values).best(children)]

    def _known(self, told: list[FrozenTrial], study: Study) -> tuple[list[Point], Vector]:
        """Return the distinct points of trials and their losses; of equal points the first."""
        distinct: dict[Any, tuple[Point, list[float]]] = {}
        for t in told:
            point = self._point(t.params)
            distinct.setdefault(self._key(point), (point, t.values))
        signs = [-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions]
        losses = np.array([values for _, values in distinct.values()]).reshape(-1, len(signs))
        return [point for point, _ in distinct.values()], self._weighed(losses * signs)

    def _weighed(self, losses: Vector) -> Vector:  # (n, objectives) -> (n,)
        if losses.shape[1] == 1 or not len(losses):
            single: Vector = losses[:, 0]
            return single
        shares = rankdata(losses, axis=0) / len(losses)
        weighed = shares * self._random.dirichlet(np.ones(losses.shape[1]))
        found: Vector = weighed.max(1) + 0.05 * weighed.sum(1)
        return found

    def _point(self, params: Mapping[str, Any]) -> Point:
        """Return a value for every free knob, mended."""
        given = {name: x for name, x in params.items() if name in self._free}
        mended = self.mended({**self._usual, **given})
        return {name: mended[name] for name in self._free}

    def _key(self, point: Point) -> tuple[Any, ...]:
        return tuple((type(x), x) for x in map(point.__getitem__, self._free))

    def _anywhere(self) -> Point:
        cube = self._coordinates.cube
        numbers = cube.values(self._random.random_sample(len(cube)))
        choices = self._coordinates.choices.items()
        return numbers | {n: c[int(self._random.randint(len(c)))] for n, c in choices}

    def _children(self, parents: list[Point], seen: set[Any]) -> list[Point]:
        """Return children that no trial has been, at least one: if need be, one that was."""
        found: dict[Any, Point] = {}
        child: Point = parents[0]
        for _ in range(4 * CHILDREN):
            child = self._point(self._child(parents))
            key = self._key(child)
            if key not in seen:
                found.setdefault(key, child)
            if len(found) == CHILDREN:
                break
        return list(found.values()) or [child]

    def _child(self, parents: list[Point]) -> Point:
        random, count = self._random, len(parents)
        ranked = np.arange(count, 0, -1) / (count * (count + 1) / 2)  # the best most often
        a, b = (parents[int(random.choice(count, p=ranked))] for _ in range(2))
        child = dict(a)
        if count > 1 and random.rand() < CROSSED:
            self._cross(child, b)
            if random.rand() < 0.5:
                return child
        for _ in range(int(random.geometric(0.6))):
            self._change(child)
        return child

    def _cross(self, child: Point, other: Point) -> None:
        for name in self._rest:
            if self._random.rand() < 0.5:
                child[name] = other[name]
        for row in self._hops:
            child |= row.written(crossed(row.read(child), row.read(other), self._random))

    @cached_property
    def _rest(self) -> list[str]:
        """Names of the knobs that are no hops, nor their factors."""
        taken = {name for row in self._hops for name in row.names}
        return [name for name in self._free if name not in taken]

    def _change(self, child: Point) -> None:
        """Change one row of hops or of flags, one choice, or some numbers."""
        kinds: list[Any] = [*self._hops, *self._flags, *(["choice"] if self._plain else [])]
        kinds += ["numbers"] if len(self._coordinates.cube) else []
        kind = kinds[int(self._random.randint(len(kinds)))]
        if isinstance(kind, Hops):
            child |= kind.written(moved(kind.read(child), kind, self._random))
        elif isinstance(kind, tuple):
            self._turn(child, kind)
        elif kind == "choice":
            name = self._plain[int(self._random.randint(len(self._plain)))]
            others = [x for x in self._coordinates.choices[name] if repr(x) != repr(child[name])]
            child[name] = others[int(self._random.randint(len(others)))]
        else:
            self._step(child)

    @cached_property
    def _plain(self) -> list[str]:
        """Names of the choices that stand in no row."""
        flags = {name for row in self._flags for name in row}
        return [n for n in self._rest if n in self._coordinates.choices and n not in flags]

    def _turn(self, child: Point, flags: tuple[str, ...]) -> None:
        """Turn a flag; or one that is on and one that is off."""
        on, off = ([n for n in flags if child[n] is state] for state in (True, False))
        which = [flags] if self._random.rand() < 0.5 or not (on and off) else [on, off]
        for names in which:
            name = names[int(self._random.randint(len(names)))]
            child[name] = not child[name]

    def _step(self, child: Point) -> None:
        """Move some numbers, by about as much as a twentieth to a third of their ranges."""
        cube, random = self._coordinates.cube, self._random
        point = cube.points([[child[name] for name in cube.names]])[0]
        share = max(1 / len(cube), 2.0 ** -int(random.randint(0, 4)))
        chosen = random.random_sample(len(cube)) < share
        chosen[int(random.randint(len(cube)))] = True
        width = float(np.exp(random.uniform(np.log(0.02), np.log(0.3))))
        point = point + chosen * width * random.standard_normal(len(cube))
        point = np.where((point < 0) | (point > 1), np.abs(point) % 2, point)
        child |= cube.values(np.where(point > 1, 2 - point, point))

"""Question: by which scores is the winner among finalists chosen best, and what is it said to be?

Simulated studies: answers are 0/1 and a smooth random function of d knobs for each item, so that
candidates that are near each other fail on the same items, and a search learns the peculiarities of
its own items. The true score of a candidate is known in closed form. Candidates are drawn at random
or by CMA-ES on the search items; finalists are chosen as a study does. Prints, for pools of several
sizes, how far (in points of a hundred) below the best finalist the winner truly is, chosen by

    search    the search items alone (no finalists are scored again)
    select    the select items alone
    both      all items, those of the search and those of the select pool
    shrunken  both, a search item by half (``search.scoring.shrinkage``): what a study does

and how far above the truth each of these numbers of its own winner is.

    python benchmarks/select_winner.py --studies 400
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cmaes
import numpy as np
import numpy.typing as npt
from scipy.special import expit

sys.path.insert(0, str(Path(__file__).parents[1]))

from search.scoring.aggregate import Aggregate, Entry
from search.scoring.intervals import paired_difference
from search.scoring.shrinkage import evidence, weighed

Vector = npt.NDArray[np.float64]
KNOBS, FEATURES, FINALISTS = 6, 48, 8
MEAN = Aggregate("mean", [Entry("all", {"all": 1.0}, {})])
HERMITE = np.polynomial.hermite_e.hermegauss(21)
CELLS = (  # how candidates come, how many, search items, select items
    *((how, 100, n, n) for how in ("random", "cma-es") for n in (50, 100, 200, 500)),
    *((how, 100, a, b) for how in ("random", "cma-es") for a, b in ((50, 200), (200, 50))),
    *((how, 20, 100, 100) for how in ("random", "cma-es")),
    *((how, 500, 100, 100) for how in ("random", "cma-es")),
)


class World:
    """Items whose answers change smoothly, and each in its own way, with a candidate's knobs."""

    def __init__(self, random: np.random.Generator, peculiar: float) -> None:
        self._best = random.uniform(0.2, 0.8, KNOBS)
        self._waves = random.normal(0, 3.0, (FEATURES, KNOBS))
        self._phases = random.uniform(0, 2 * np.pi, FEATURES)
        self._peculiar, self._random = peculiar, random

    def items(self, count: int) -> Callable[[Vector], Vector]:
        """Return what draws of so many items answer: (d,) knobs in, (count,) 0 or 1 out."""
        own = self._random.normal(size=(count, FEATURES))
        ease = self._random.logistic(0, 1.5, count)
        return lambda x: (ease + self._level(x) + own @ self._field(x) > 0).astype(np.float64)

    def truth(self, x: Vector) -> float:
        """Return the share of all items, of which there are infinitely many, that are right."""
        spread = float(np.linalg.norm(self._field(x)))
        at, weights = HERMITE
        return float(weights @ expit((self._level(x) + spread * at) / 1.5) / weights.sum())

    def _level(self, x: Vector) -> float:
        return 0.4 - 1.5 * float(((x - self._best) ** 2).sum())

    def _field(self, x: Vector) -> Vector:
        waves = np.cos(self._waves @ x + self._phases)
        field: Vector = self._peculiar * np.sqrt(2 / FEATURES) * waves
        return field


def candidates(
    how: str, count: int, score: Callable[[Vector], Vector], random: np.random.Generator
) -> Iterator[tuple[Vector, Vector]]:
    """Yield knobs and search answers, drawn at random or by CMA-ES."""
    bounds = np.array([[0.0, 1.0]] * KNOBS)
    seed = int(random.integers(2**31))
    strategy = cmaes.CMA(np.full(KNOBS, 0.5), 1 / 6, bounds=bounds, seed=seed)
    told: list[tuple[Vector, float]] = []
    for _ in range(count):
        x = random.random(KNOBS) if how == "random" else strategy.ask()
        answers = score(x)
        yield x, answers
        told.append((x, -float(answers.mean())))
        if len(told) == strategy.population_size:
            strategy.tell(told)
            told = []


def finalists(answers: Vector) -> list[int]:
    """Return whose paired interval reaches the best, best first."""
    order = np.argsort(-answers.mean(axis=1), kind="stable")
    found: list[int] = []
    for n in order:
        if len(found) == FINALISTS:
            break
        if any(np.array_equal(answers[n], answers[m]) for m in found):
            continue
        if paired_difference([answers[n]], [answers[order[0]]], [1.0]).high >= 0:
            found.append(int(n))
    return found


def study(how: str, count: int, n: int, m: int, peculiar: float, seed: int) -> Vector:
    """Return (2, 4): regret and optimism of each rule, in points."""
    random = np.random.default_rng(seed)
    world = World(random, peculiar)
    first, second = world.items(n), world.items(m)
    points, seen = zip(*candidates(how, count, first, random), strict=True)
    answers = np.array(seen)
    chosen = finalists(answers)
    fresh = np.array([second(points[i]) for i in chosen])
    truth = np.array([world.truth(points[i]) for i in chosen])
    x, y = answers[chosen].mean(axis=1), fresh.mean(axis=1)
    both = [[{"all": row} for row in rows] for rows in (answers[chosen], fresh)]
    search, select = (evidence(MEAN, rows) for rows in both)
    rules = [x, y, (n * x + m * y) / (n + m), np.array(weighed(select, search).shrunken)]
    orders = [*rules[:3], np.array(weighed(select, search).order)]
    best = [int(np.argmax(order)) for order in orders]
    told = [rule[b] for rule, b in zip(rules, best, strict=True)]
    return 100 * np.array([truth.max() - truth[best], np.array(told) - truth[best]])


def main() -> None:
    """Simulate, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--peculiar", type=float, default=1.0, help="spread of items' own ways")
    arguments = parser.parse_args()
    rules = ("search", "select", "both", "shrunken")
    head = "".join(f"{rule:>9}" for rule in rules)
    print(f"{'':30} {'points below the best finalist':<36}   too high by")
    print(f"{'candidates':>16} {'search':>6} {'select':>6} {head}   {head}")
    for how, count, n, m in CELLS:
        found = [study(how, count, n, m, arguments.peculiar, i) for i in range(arguments.studies)]
        regret, high = np.mean(found, axis=0)
        cells = ("".join(f"{x:9.2f}" for x in row) for row in (regret, high))
        print(f"{count:>5} by {how:>7} {n:>6} {m:>6} {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()

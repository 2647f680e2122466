"""Question: how often does a race stop who is better by the margin, and what do the others cost?

Made-up pools and models, items in random order. The claim "``value >= rival's + margin``" is true
of the candidate with equality on the pool (the hardest case), so stopping it is an error.
``stopped`` is how many are, at any look before the last, where all is seen: at most ``error``, and
``ok`` up to three standard errors of the simulation. Beside it the share of items that is seen of a
candidate that is equal to the rival, or 2, 5 and 10 points worse, with the product's looks.

Items are ``0/1`` or ``graded`` (in [0, 1]), of one to five tasks, of equal or very unequal sizes
and weights, alone or in clusters of five that share how hard they are; ``nats`` have no bounds (the
asymptotic test). Candidate and rival agree as merges of the same parents do: a shared difficulty
explains most of both. The exact equality is made by the form's ``least``, not by changing scores.

    python benchmarks/race_errors.py [--races 1000] [--error 0.1] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from search.scoring.sequential import Form, refuted
from search.scoring.units import Units
from search.spec.sections import Race

Vector = npt.NDArray[np.float64]
Scores = dict[str, Vector]
WORSE = (0.0, 0.02, 0.05, 0.10)  # how much a candidate is worse than the rival


@dataclass(frozen=True)
class World:
    """One kind of study."""

    name: str
    kind: str  # 0/1, graded, nats
    sizes: Sequence[int]  # items of each task
    weights: Sequence[float]
    cluster: int = 1  # items of one

    @property
    def tasks(self) -> list[str]:
        """Return the tasks' names."""
        return [f"t{i}" for i in range(len(self.sizes))]

    @property
    def factors(self) -> dict[str, float]:
        """Return the tasks' weights, sum 1."""
        return {t: w / sum(self.weights) for t, w in zip(self.tasks, self.weights, strict=True)}

    @property
    def spans(self) -> dict[str, float]:
        """Return how far two scores can be apart."""
        return dict.fromkeys(self.tasks, math.inf if self.kind == "nats" else 1.0)

    def drawn(self, stream: np.random.Generator, worse: float) -> tuple[Scores, Scores]:
        """Return scores of a candidate that is about so much worse, and of the rival, by cluster.

        The order of the clusters is random.
        """
        candidate, rival = {}, {}
        for task, items in zip(self.tasks, self.sizes, strict=True):
            groups = stream.normal(0, 1.2, -(-items // self.cluster))
            easy = np.repeat(groups, self.cluster)[:items] + stream.normal(0, 0.9, items)
            own = stream.normal(0, 0.8, (2, items))
            scores = [
                self._scored(easy + x + 0.9 - 4.2 * w)
                for x, w in zip(own, (worse, 0.0), strict=True)
            ]
            candidate[task], rival[task] = scores
        return candidate, rival

    def _scored(self, ability: Vector) -> Vector:
        nats = np.minimum(ability, 0) - np.log1p(np.exp(-np.abs(ability)))
        kinds = {"nats": nats, "graded": np.exp(2 * ability) / (1 + np.exp(2 * ability))}
        scores: Vector = kinds.get(self.kind, (ability > 0).astype(np.float64))
        return scores

    def units(self, seed: int) -> Units:
        """Return the units of a pool."""
        pairs = zip(self.tasks, self.sizes, strict=True)
        ids = {t: [str(i // self.cluster) for i in range(n)] for t, n in pairs}
        return Units.of(ids, seed)


WORLDS = (
    World("0/1, 1 task of 100", "0/1", [100], [1]),
    World("0/1, 1 task of 500", "0/1", [500], [1]),
    World("0/1, 3 tasks of 120", "0/1", [120] * 3, [1] * 3),
    World("0/1, 5 uneven tasks", "0/1", [20, 60, 100, 200, 300], [1] * 5),
    World("0/1, 3 uneven weights", "0/1", [50, 100, 300], [5, 1, 1]),
    World("0/1, clusters of 5", "0/1", [500], [1], 5),
    World("0/1, 3 tasks, clusters", "0/1", [100, 150, 200], [1] * 3, 5),
    World("graded, 1 task of 200", "graded", [200], [1]),
    World("graded, 3 uneven tasks", "graded", [40, 120, 200], [1, 2, 1]),
    World("graded, clusters of 5", "graded", [400], [1], 5),
    World("nats, 1 task of 300", "nats", [300], [1]),
    World("nats, 2 tasks", "nats", [100, 250], [1, 1]),
)


def value(factors: Mapping[str, float], scores: Scores) -> float:
    """Return the weighted mean of the tasks' means."""
    return Form(factors, 0.0).value(scores)


def seen(
    world: World, form: Form, scores: tuple[Scores, Scores], units: Units, error: float
) -> int:
    """Return after how many units the candidate is stopped, or all."""
    candidate, rival = scores
    for look in units.looks()[:-1]:
        part = {t: candidate[t][:n] for t, n in units.prefix(look).items()}
        if refuted(form, part, rival, units, world.spans, error):
            return look
    return units.count


def row(world: World, races: int, error: float, margin: float) -> dict[str, Any]:
    """Simulate one world."""
    stream = np.random.default_rng(0)
    wrong, shares = 0, dict.fromkeys(WORSE, 0.0)
    few = max(1, races // 5)
    for number in range(races):
        units = world.units(number)
        scores = world.drawn(stream, float(stream.choice(WORSE)))
        form = Form(world.factors, value(world.factors, scores[0]))  # just true
        wrong += seen(world, form, scores, units, error) < units.count
        for worse in WORSE if number < few else ():
            scores = world.drawn(stream, worse)
            both = [value(world.factors, x) for x in scores]
            # worse by exactly that much: what is claimed moves, the scores stay
            form = Form(world.factors, both[0] + worse + margin)
            units_seen = seen(world, form, scores, units, error)
            shares[worse] += sum(units.prefix(units_seen).values()) / sum(world.sizes) / few
    limit = error + 3 * math.sqrt(error * (1 - error) / races)
    return {
        "world": world.name,
        "stopped": wrong / races,
        "ok": wrong / races <= limit,
        "seen": {f"{worse:g}": round(share, 3) for worse, share in shares.items()},
    }


def main() -> None:
    """Parse, simulate, print."""
    race = Race()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--races", type=int, default=1000)
    parser.add_argument("--error", type=float, default=race.error)
    parser.add_argument("--margin", type=float, default=race.margin)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    print(f"margin {options.margin:g}, error {options.error:g}: share of items seen by who is")
    print(f"{'':24} {'stopped':>8} {'':4}" + "".join(f"{-100 * w:+8.0f}" for w in WORSE))
    for world in WORLDS:
        found = row(world, options.races, options.error, options.margin)
        rows.append(found)
        line = f"{world.name:24} {found['stopped']:8.1%} {'ok' if found['ok'] else 'NO':4}"
        print(line + "".join(f"{x:8.0%}" for x in found["seen"].values()), flush=True)
    if options.json:
        print(json.dumps({"margin": options.margin, "error": options.error, "rows": rows}))


if __name__ == "__main__":
    main()

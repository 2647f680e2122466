"""Question: do the report's 95 % intervals cover the truth after a search has picked its winner?

Simulated studies, each with items and models of its own. ``candidates`` models are scored on 100
search items; the best 8 are scored on 100 select items, the best of these wins; the winner and the
parent that is best there are scored once more on the report items. Intervals are the product's.
To halve the noise of the shares, each winner is measured on four report pools of its own.
Printed per cell, in percent of the studies: how often the interval of the winner's report score
covers its true score (``winner``), that of winner minus best parent the true difference
(``minus_parent``); the first without regard to clusters (``no_clusters``); and the interval of the
best search score (``search``), which nobody should report.

Made-up items: model m has on item i of cluster g the ability ``z = a_m + E_i + U_mi``, with normal
E (how hard the item is, for all) and U (what this model makes of it; candidates have part of their
parents'), both partly of the cluster. A 0/1 score is ``z > 0``, a graded one ``Phi(z / 0.75)``; the
true score is the mean over infinitely many items, in closed form. ``correlation`` is that of the
scores of two items of a cluster at ability 0. Clusters of ``1-10`` items are the harder the larger
they are. ``5, 3 tasks``: three tasks, one easier and one harder, clusters of 5.

``--responses FOLDER``: real right/wrong answers instead, ``Y`` (models x items) in ``*.npz``. The
population is the bank of items in a file and the truth the mean over it, so items, or whole
clusters, are drawn with replacement: drawn without, a finite bank would be covered too often.
Parents are three models above the median, candidates 100 of the 500 that answer most alike.
``2 twins``: every item twice; ``5 alike``: five items of like difficulty are a cluster; graded
scores are the share of right answers to five items.

A cell is judged where the report pool has at least 30 clusters: ``ok`` if both are in 94 to 97.

    python benchmarks/calibration.py [--json] [--studies 2000] [--quick] [--responses FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from search.scoring.intervals import Estimate, IntVector, Sample, combined, paired_difference

Array = npt.NDArray[np.float32]
Kind = Literal["0/1", "graded"]

PARENTS, FINALISTS = 3, 8
SEARCH, SELECT, REPORT = 100, 100, (50, 150, 300, 1000)  # items
POOLS = 4  # report pools of each size
SOFT = {"0/1": 0.0, "graded": 0.75}  # how slowly a score rises with the ability
OWN, FROM_PARENTS = 0.6, 0.3  # share of U in an item's variance; of the parents' in a child's U
SPREAD = (
    0.08  # of abilities of candidates of the same parents: 3 points of 0/1 scores; parents: twice
)
HARDER = 0.1  # ability lost by one more item in a cluster of 1-10
TASKS = (-0.5, 0.0, 0.5)  # how much easier the three tasks are


@dataclass(frozen=True)
class Cell:
    """Studies of one kind; each is read at all sizes of the report pool."""

    kind: Kind
    clusters: str  # see LAYOUTS
    correlation: float
    candidates: int
    bank: str = ""  # file of responses


@dataclass(frozen=True)
class Pool:
    """Items that some models answer: ``scores`` (models, n), ``clusters`` and ``tasks`` (n,)."""

    scores: Array
    clusters: IntVector
    tasks: IntVector

    def samples(self, model: int, clusters: int, grouped: bool = True) -> list[Sample]:
        """Return a model's scores on the first clusters, task by task."""
        first = self.clusters < clusters
        masks = [first & (self.tasks == t) for t in range(self.tasks.max() + 1)]
        values = self.scores[model].astype(np.float64)
        return [Sample(values[x], self.clusters[x] if grouped else None) for x in masks]

    def means(self) -> Array:
        """Return the mean of the tasks' means of every model."""
        each = [self.scores[:, self.tasks == t].mean(1) for t in range(self.tasks.max() + 1)]
        found: Array = np.mean(each, axis=0)
        return found


@dataclass(frozen=True)
class Study:
    """Models, the parents first: their true scores, and what makes a pool of some clusters."""

    truth: npt.NDArray[np.float64]
    pool: Callable[[int, IntVector], Pool]  # clusters, models -> their scores


@dataclass(frozen=True)
class Layout:
    """How made-up items are grouped."""

    sizes: tuple[int, ...]  # equally frequent
    tasks: tuple[float, ...] = (0.0,)

    def count(self, items: int) -> int:
        """Return how many clusters have that many items, on average."""
        return round(items / np.mean(self.sizes))


LAYOUTS = {
    "1": Layout((1,)),
    "2": Layout((2,)),
    "5": Layout((5,)),
    "10": Layout((10,)),
    "1-10": Layout(tuple(range(1, 11))),
    "5, 3 tasks": Layout((5,), TASKS),
    "2 twins": Layout((2,)),
    "5 alike": Layout((5,)),
}


def made_up(cell: Cell, rng: np.random.Generator) -> Study:
    """Draw the models of a study; items are drawn with each pool."""
    layout, soft = LAYOUTS[cell.clusters], SOFT[cell.kind]
    parents = 0.35 + 0.3 * rng.standard_normal() + 2 * SPREAD * rng.standard_normal(PARENTS)
    mix = rng.dirichlet(np.ones(PARENTS), cell.candidates)
    child = mix @ parents + SPREAD * rng.standard_normal(cell.candidates)
    ability = np.r_[parents, child].astype(np.float32)
    mix = (mix / np.linalg.norm(mix, axis=1, keepdims=True)).astype(np.float32)
    # P(z > soft * e) for normal z, e: the correlation of two such scores at 0 is an arc sine.
    shared = (1 + soft**2) * np.sin(cell.correlation * np.arcsin(1 / (1 + soft**2)))

    def noise(models: int, sizes: IntVector) -> Array:
        both = rng.standard_normal((models, len(sizes) + sizes.sum()), np.float32)
        ours, alone = both[:, : len(sizes)], both[:, len(sizes) :]
        if len(sizes) == sizes.sum():
            return alone
        return np.repeat(ours, sizes, 1) * np.float32(shared**0.5) + alone * np.float32(
            (1 - shared) ** 0.5
        )

    def pool(clusters: int, who: IntVector) -> Pool:
        sizes = rng.choice(layout.sizes, clusters)
        tasks = np.arange(clusters) % len(layout.tasks)
        easy = np.take(layout.tasks, tasks) - _harder(layout, sizes)
        own, theirs = noise(len(who), sizes), noise(PARENTS, sizes)
        born = who >= PARENTS
        own[born] *= np.float32((1 - FROM_PARENTS) ** 0.5)
        own[born] += np.float32(FROM_PARENTS**0.5) * (mix[who[born] - PARENTS] @ theirs)
        own[~born] = theirs[who[~born]]
        z = own * np.float32(OWN**0.5) + np.float32((1 - OWN) ** 0.5) * noise(1, sizes)
        z += np.repeat(easy, sizes).astype(np.float32) + ability[who][:, None]
        scores = ndtr(z / np.float32(soft)) if soft else (z > 0).astype(np.float32)
        return Pool(scores, np.repeat(np.arange(clusters), sizes), np.repeat(tasks, sizes))

    sizes = np.array(layout.sizes)
    shifts = np.add.outer(layout.tasks, -_harder(layout, sizes))
    each = ndtr(np.add.outer(ability, shifts).astype(float) / (1 + soft**2) ** 0.5).mean(1)
    return Study(each @ (sizes / sizes.sum()), pool)


def _harder(layout: Layout, sizes: IntVector) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = HARDER * (sizes - np.mean(layout.sizes))
    return found


def answered(cell: Cell, bank: Array, rng: np.random.Generator) -> Study:
    """Draw real models; pools draw clusters of the bank's items with replacement."""
    above = np.flatnonzero(bank.mean(1) > np.median(bank.mean(1)))
    parents = rng.choice(above, PARENTS, replace=False)
    apart = np.array([(bank != bank[p]).mean(1) for p in parents]).min(0)
    apart[parents] = np.inf
    near = np.argsort(apart, kind="stable")[:500]
    models = np.r_[parents, rng.choice(near, cell.candidates, replace=False)]
    groups = _groups(bank, cell)  # (groups, items), of equal size
    size = groups.shape[1]

    def pool(clusters: int, who: IntVector) -> Pool:
        items = groups[rng.integers(len(groups), size=clusters)].ravel()
        scores = bank[models[who]][:, items]
        return Pool(scores, np.repeat(np.arange(clusters), size), np.zeros(len(items), np.int64))

    return Study(bank[models][:, groups.ravel()].mean(1, dtype=np.float64), pool)


def _groups(bank: Array, cell: Cell) -> IntVector:
    if cell.clusters == "5 alike":
        order = np.argsort(bank.mean(0), kind="stable")
        return order[: len(order) // 5 * 5].reshape(-1, 5)
    single = np.arange(bank.shape[1])[:, None]
    return np.repeat(single, 2, 1) if cell.clusters == "2 twins" else single


def loaded(cell: Cell) -> Array:
    """Return the bank of a cell; graded scores are means of five items at a time."""
    bank: Array = np.load(cell.bank)["Y"].astype(np.float32)
    if cell.kind == "0/1":
        return bank
    order = np.random.default_rng(0).permutation(bank.shape[1])
    return bank[:, order[: len(order) // 5 * 5]].reshape(len(bank), -1, 5).mean(2)


def hits(study: Study, layout: Layout) -> Iterator[dict[str, float]]:
    """Search, select, report; yield how often the truth was covered, per size of the report."""
    everyone = np.arange(len(study.truth))
    search = study.pool(layout.count(SEARCH), everyone)
    ranked = PARENTS + np.argsort(-search.means()[PARENTS:], kind="stable")
    chosen = np.r_[:PARENTS, ranked[:FINALISTS]]
    select = study.pool(layout.count(SELECT), chosen).means()
    winner = int(chosen[PARENTS + select[PARENTS:].argmax()])
    parent = int(chosen[select[:PARENTS].argmax()])
    weights = [1.0] * len(layout.tasks)
    true, apart = study.truth[winner], study.truth[winner] - study.truth[parent]
    first = int(ranked[0])
    naive = combined(search.samples(first, layout.count(SEARCH)), weights)
    for items in REPORT:
        count = layout.count(items)
        pools = [study.pool(count, np.array([winner, parent])) for _ in range(POOLS)]
        ours, theirs = ([pool.samples(i, count) for pool in pools] for i in (0, 1))
        alone = pools[0].samples(0, count, grouped=False)
        both = [paired_difference(a, b, weights) for a, b in zip(ours, theirs, strict=True)]
        yield {
            "winner": float(np.mean([covers(combined(a, weights), true) for a in ours])),
            "minus_parent": float(np.mean([covers(found, apart) for found in both])),
            "no_clusters": covers(combined(alone, weights), true),
            "search": covers(naive, study.truth[first]),
        }


def covers(found: Estimate, truth: float) -> bool:
    """Return whether an interval covers a number, but for the rounding of both."""
    return bool(found.low - 1e-9 <= truth <= found.high + 1e-9)


def measured(cell: Cell, studies: int, seed: int) -> list[dict[str, Any]]:
    """Return one row for each size of the report pool."""
    rng, layout = np.random.default_rng([seed, *repr(cell).encode()]), LAYOUTS[cell.clusters]
    bank = loaded(cell) if cell.bank else np.empty((0, 0), np.float32)
    found = [
        list(hits(answered(cell, bank, rng) if cell.bank else made_up(cell, rng), layout))
        for _ in range(studies)
    ]
    rows = []
    for i, items in enumerate(REPORT):
        shares = {k: 100 * float(np.mean([x[i][k] for x in found])) for k in found[0][i]}
        many = layout.count(items) >= 30
        ok = all(94 <= shares[k] <= 97 for k in ("winner", "minus_parent"))
        row = {**asdict(cell), "bank": Path(cell.bank).stem, "items": items}
        rows.append({**row, "report_clusters": layout.count(items), **shares, "judged": many})
        rows[-1]["ok"] = ok if many else None
    return rows


def cells(quick: bool, folder: Path | None) -> list[Cell]:
    """Return all cells; of made-up items, or of the banks in a folder."""
    if folder is not None:
        banks = sorted(map(str, folder.glob("*.npz")))
        kinds: list[tuple[Kind, str]] = [("0/1", "1"), ("0/1", "2 twins"), ("0/1", "5 alike")]
        kinds += [("graded", "1"), ("graded", "2 twins")]
        return [Cell(kind, c, 0.0, 100, bank) for bank in banks for kind, c in kinds]
    layouts = ("1", "5") if quick else ("1", "2", "5", "10", "1-10", "5, 3 tasks")
    counts = {c: (100,) if quick or c not in ("1", "5", "10") else (20, 100, 500) for c in layouts}
    both: tuple[Kind, ...] = ("0/1", "graded")
    return [
        Cell(kind, layout, correlation, count)
        for kind in both
        for layout in layouts
        for count in counts[layout]
        for correlation in ((0.0,) if layout == "1" else (0.0, 0.25, 0.5))
    ]


def shown(row: dict[str, Any]) -> str:
    """Return a row as a line of the table."""
    shares = "".join(f"{row[k]:13.1f}" for k in ("winner", "minus_parent", "no_clusters", "search"))
    said = {True: "ok", False: "OUT", None: ""}[row["ok"]]
    name = f"{row['bank'][:12]:13}" if row["bank"] else ""
    return (
        f"{name}{row['kind']:7}{row['clusters']:11}{row['correlation']:5}{row['candidates']:6}"
        f"{row['items']:6}{row['report_clusters']:6}{shares}   {said}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, simulate, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print nothing but one JSON object")
    parser.add_argument("--studies", type=int, default=2000, help="per cell")
    parser.add_argument("--quick", action="store_true", help="a few cells only")
    parser.add_argument("--responses", type=Path, help="folder of real answers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args(arguments)
    todo = cells(args.quick, args.responses)
    rows: list[dict[str, Any]] = []
    if not args.json:
        heads = ("winner", "minus_parent", "no_clusters", "search")
        print(f"{'kind':7}{'clusters':11}{'corr':>5}{'cand':>6}{'items':>6}{'clust':>6}", end="")
        print(*(f"{head:>13}" for head in heads), sep="")
    with ProcessPoolExecutor(args.processes) as pool:
        for found in pool.map(
            measured, todo, *([x] * len(todo) for x in (args.studies, args.seed))
        ):
            rows += found
            if not args.json:
                print(*map(shown, found), sep="\n", flush=True)
    judged = [row for row in rows if row["judged"]]
    out = sum(not row["ok"] for row in judged)
    found = {"studies": args.studies, "judged": len(judged), "out": out, "rows": rows}
    print(json.dumps(found) if args.json else f"{out} of {len(judged)} judged cells out of 94-97 %")


if __name__ == "__main__":
    main()

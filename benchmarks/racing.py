"""Question: what does racing save, and what does the winner lose or gain by it?

The quickstart's models with a weight for each expert, layer and block (24 numbers), searched by
CMA-ES. For each seed three arms with the same pools: ``full`` (every candidate sees all search
items), ``raced`` (as many trials), ``budget`` (raced, more trials until as many items are used as
``full`` uses). The winner is chosen on the select items and compared on the report items.

Prints for each seed and over all seeds: items of the search as a share of ``full``'s, trials, who
was stopped, the winner's report score, and its difference from ``full``'s, paired over the same
report items, with the product's 95 % interval; over all seeds an item counts as one cluster
however many seeds have it, and the last column is Student's interval over seeds.

What is done is kept in the folder ``--out`` and not done again, a study that was killed goes on.
Seeds or arms may run side by side in two processes with the same folder; whatever is there is
printed.

    python benchmarks/racing.py --out FOLDER --seeds 0 1 2 3 4 --arms full raced budget
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from scipy import stats

from search.report.select import choose
from search.run.loop import search
from search.run.resume import open_for
from search.scoring.intervals import Estimate, paired_difference
from search.scoring.samples import Sample
from search.spec import study_file
from search.storage.study_record import Record
from search.trial.progress import Unheard
from search.trial.worker import Worker

QUICKSTART = Path(__file__).parents[1] / "studies" / "quickstart"
ARMS = ("full", "raced", "budget")
MORE = 30  # times the trials of full that budget may have at most
STUDY = """
name: racing-{arm}-{seed}
recipe:
  merge_method: task_arithmetic
  base_model: models/base
  models:
    - {{model: models/add, parameters: {{weight: {knob}}}}}
    - {{model: models/sort, parameters: {{weight: {knob}}}}}
    - {{model: models/rev, parameters: {{weight: {knob}}}}}
  dtype: float32
score:
  - {{evaluator: lm_eval, task: quickstart_add, include_path: tasks}}
  - {{evaluator: lm_eval, task: quickstart_sort, include_path: tasks}}
  - {{evaluator: lm_eval, task: quickstart_rev, include_path: tasks}}
items: {{search: {items}, select: 360, report: rest}}
search: {{sampler: cma-es, seed: {seed}, trials: {trials}, race: {race}}}
engine: {{device: cpu, batch_size: 128, threads: 1}}
"""
KNOB = (
    "[{filter: self_attn, value: {low: 0, high: 1.5, per: layer}}, "
    "{value: {low: 0, high: 1.5, per: layer}}]"
)


def run(options: argparse.Namespace, seed: int, arm: str) -> dict[str, Any]:
    """Return what an arm found; from the folder if it has been run."""
    folder: Path = options.out / f"{arm}-{seed}"
    kept = folder / "found.json"
    if kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    for name in ("models", "tasks"):
        shutil.copytree(QUICKSTART / name, folder / name, dirs_exist_ok=True)
    text = STUDY.format(
        arm=arm,
        seed=seed,
        knob=KNOB,
        items=options.items,
        trials=options.trials * (MORE if arm == "budget" else 1),
        race="off" if arm == "full" else options.race,
    )
    (folder / "study.yaml").write_text(text)
    made = searched(folder, options.trials if arm == "budget" else None)
    new = kept.with_suffix(".new")
    new.write_text(json.dumps({"seed": seed, "arm": arm, **made}))
    new.rename(kept)
    return {"seed": seed, "arm": arm, **made}


def searched(folder: Path, trials: int | None) -> dict[str, Any]:
    """Search, choose, report; with ``trials`` until so many scored whole would have cost it."""
    spec = study_file.read(folder)
    spec.results.mkdir(exist_ok=True)
    record = open_for(spec)
    worker = Worker(spec.data, spec.folder, record.about)
    pool = len(worker.tasks.pools["search"])

    def used_up() -> bool:
        there = record.trials
        first = sum(not t.was_searched() for t in there)
        return trials is not None and sum(t.cost for t in there) >= (trials + first) * pool

    with record.writing():
        search(spec, record, worker, Unheard(), used_up)
        chosen = choose(record, worker, Unheard())
    return outcome(record, worker, chosen.winner)


def outcome(record: Record, worker: Worker, winner: int) -> dict[str, Any]:
    """Return what the tables need, as JSON values."""
    trial, tasks = record.trial(winner), worker.tasks
    ran = [t for t in record.trials if t.was_searched()]
    scores = trial.measured["report"].scores
    return {
        "items": sum(t.cost for t in record.trials),
        "trials": len(ran),
        "stopped": sum(t.state == "stopped" for t in ran),
        "search": trial.value,
        "report": tasks.value(scores, "report")[0],
        "scores": {task: [*values] for task, values in scores.items()},
        "ids": tasks.item_ids()["report"],
    }


def difference(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> Estimate:
    """Return ours minus theirs over the report items of all seeds, an item being one cluster."""
    tasks = sorted(ours[0]["scores"])
    sides: tuple[list[Sample], list[Sample]] = ([], [])
    for task in tasks:
        names = [name.partition("#")[0] for run in ours for name in run["ids"][task]]
        numbers = np.unique(names, return_inverse=True)[1]
        for side, runs in zip(sides, (ours, theirs), strict=True):
            values = np.concatenate([run["scores"][task] for run in runs])
            side.append(Sample(values.astype(float), numbers.astype(np.int64)))
    return paired_difference(*sides, [1.0] * len(tasks))


def shown(name: str, runs: Sequence[dict[str, Any]], full: Sequence[dict[str, Any]]) -> str:
    """Return a line of the table."""

    def mean(key: str) -> float:
        return float(np.mean([run[key] for run in runs]))

    share = sum(r["items"] for r in runs) / sum(r["items"] for r in full)
    text = f"{name:16} {share:7.1%} {mean('trials'):7.0f} {mean('stopped'):8.0f}"
    text += f" {mean('search'):8.4f} {mean('report'):8.4f}"
    if runs[0]["arm"] == "full":
        return text
    found = difference(runs, full)
    text += f"   {found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    if len(runs) > 1:
        each = [r["report"] - f["report"] for r, f in zip(runs, full, strict=True)]
        low, high = stats.t.interval(0.95, len(each) - 1, np.mean(each), stats.sem(each))
        text += f"   [{low:+.4f}, {high:+.4f}]"
    return text


def table(found: dict[tuple[int, str], dict[str, Any]], seeds: Sequence[int]) -> None:
    """Print what is there."""
    print(f"{'':16} {'items':>7} {'trials':>7} {'stopped':>8} {'search':>8} {'report':>8}", end="")
    print("   minus full, over items           over seeds")
    for arm in ARMS:
        both = [s for s in seeds if (s, arm) in found and (s, "full") in found]
        full = [found[s, "full"] for s in both]
        runs = [found[s, arm] for s in both]
        for run_, other in zip(runs, full, strict=True):
            print(shown(f"{arm} {run_['seed']}", [run_], [other]))
        if len(both) > 1:
            print(shown(f"{arm}, {len(both)} seeds", runs, full))


def main() -> None:
    """Parse, run what is missing, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of what is done")
    parser.add_argument("--seeds", nargs="+", type=int, default=range(5))
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=ARMS, help="none: print only")
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--items", type=int, default=360, help="of the search pool")
    parser.add_argument("--race", default="on", help="as in a study file")
    parser.add_argument("--json", action="store_true", help="print a JSON line as well")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for seed in options.seeds:
        for arm in options.arms:
            run(options, seed, arm)
    there = [(s, a) for s in options.seeds for a in ARMS]
    found = {(s, a): run(options, s, a) for s, a in there if done(options, s, a)}
    table(found, options.seeds)
    if options.json:
        keys = ("seed", "arm", "items", "trials", "stopped", "search", "report")
        print(json.dumps({"rows": [{k: r[k] for k in keys} for r in found.values()]}))


def done(options: argparse.Namespace, seed: int, arm: str) -> bool:
    """Return whether an arm has been run."""
    kept: Path = options.out / f"{arm}-{seed}" / "found.json"
    return kept.is_file()


if __name__ == "__main__":
    main()

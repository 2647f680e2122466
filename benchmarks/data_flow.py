"""Question: does a path through the layers of three experts do better than the best of them?

The quickstart's experts, each good at one skill; the sort expert is the entry model. Nothing is
merged: a candidate's layers are those of the experts, in the order that the search finds. Of the
eight paths with the best search scores the best on the select items is the winner; what is compared
with the best parent (by its select score) are their scores on the report items, which chose
nothing. Prints both, and the paired difference with its 95 % interval, for each seed of the search.

    python benchmarks/data_flow.py --seeds 3 --trials 60
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from planted_path import Quiet

from search.report.measure import REPORT, SELECT, measure
from search.run.loop import search
from search.run.resume import open_for
from search.space.hops import hops_of, shown
from search.spec import study_file
from search.storage.study_record import Record
from search.trial.worker import Worker

QUICKSTART = Path(__file__).parents[1] / "studies" / "quickstart"
STUDY = """
name: data-flow-{sampler}-{seed}
recipe:
  slices:
    path:
      parents: [{models}/sort, {models}/add, {models}/rev]
      repeats: {repeats}
      max_layers: {layers}
  dtype: float32
score:
  - {{evaluator: lm_eval, task: quickstart_add, include_path: {tasks}}}
  - {{evaluator: lm_eval, task: quickstart_sort, include_path: {tasks}}}
  - {{evaluator: lm_eval, task: quickstart_rev, include_path: {tasks}}}
items: {{search: 360, select: 360, report: rest}}
search: {{sampler: {sampler}, seed: {seed}, trials: {trials}}}
engine: {{device: cpu, batch_size: 128, threads: 1}}
"""


def run(sampler: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run a study and compare its best path with its best parent."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        text = STUDY.format(
            sampler=sampler,
            seed=seed,
            models=QUICKSTART / "models",
            tasks=QUICKSTART / "tasks",
            repeats=options.repeats,
            layers=options.layers,
            trials=options.trials,
        )
        (folder / "study.yaml").write_text(text)
        spec = study_file.read(folder)
        spec.results.mkdir()
        record, worker = open_for(spec), Worker(spec.data, spec.folder)
        with record.writing():
            search(spec, record, worker, Quiet(), lambda: False)
            paths = {t.weights_digest: t.number for t in record.trials if t.params and t.value}
            ranked = sorted(paths.values(), key=lambda n: -(record.trials[n].value or 0))
            parents = [t.number for t in record.trials if (t.baseline or "").startswith("parent:")]
            winner = max(ranked[:8], key=partial(value, record, worker, SELECT))
            parent = max(parents, key=partial(value, record, worker, SELECT))
            reports = [value(record, worker, REPORT, n) for n in (winner, parent)]
            ours, theirs = (
                worker.tasks.oriented(record.trials[n].measured[REPORT].scores, REPORT)
                for n in (winner, parent)
            )
            difference = worker.tasks.aggregate.difference(ours, theirs)
            return {
                "sampler": sampler,
                "seed": seed,
                "path": shown(
                    hop._replace(model=Path(hop.model).name)
                    for hop in hops_of(record.trials[winner].recipe)
                ),
                "report": reports[0],
                "best_parent": reports[1],
                "difference": [difference.mean, difference.low, difference.high],
            }


def value(record: Record, worker: Worker, pool: str, number: int) -> float:
    """Return a trial's value on a pool."""
    measure(record, worker, pool, [number], Quiet())
    return worker.tasks.value(record.trials[number].measured[pool].scores, pool)[0]


def main() -> None:
    """Search, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samplers", nargs="+", default=["moves"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = []
    for sampler in options.samplers:
        for seed in range(options.seeds):
            rows.append(run(sampler, seed, options))
            mean, low, high = rows[-1]["difference"]
            print(
                f"{sampler} seed {seed}: path {rows[-1]['report']:.4f}, best parent "
                f"{rows[-1]['best_parent']:.4f}, difference {mean:+.4f} [{low:+.4f}, {high:+.4f}]; "
                f"{rows[-1]['path']}",
                flush=True,
            )
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()

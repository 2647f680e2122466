"""Question: is the report of a large study written in a moment, and small enough to be mailed?

Makes up a finished study of 1,000 trials with 64 knobs and 500 search items, two fifths of them
stopped, in a real SQLite file through the product's own codec. Then opens it as `mergetune report`
does and writes the report. Prints seconds and size, and both as shares of what they may be: 20 s,
8 MB.

    python benchmarks/report_size.py --trials 1000 --layers 32 --items 500
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search.report import pages
from search.report.page.found import Found
from search.report.summary import Candidate, Cost, Difference, Report, Scored, SearchScore, Winner
from search.scoring.intervals import Estimate
from search.space.space import Space
from search.spec import study_file
from search.storage.about import pools_of
from search.storage.locate import open_study
from search.storage.open import open_record
from search.trial.trial import Measurement, Trial

SECONDS, BYTES = 20.0, 8_000_000
STUDY = """
name: large
recipe:
  merge_method: task_arithmetic
  base_model: org/base
  models:
    - {model: org/one, parameters: {weight: {low: 0.0, high: 1.5, per: layer}}}
    - {model: org/two, parameters: {weight: {low: 0.0, high: 1.5, per: layer}}}
score:
  - {evaluator: lm_eval, task: first}
  - {evaluator: lm_eval, task: second}
"""
PARTS = (
    *("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    *("self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj",
)
BASELINES = ("base", "parent:org/one", "parent:org/two", "uniform", "simple:weight=0.6")


def trials(space: Space, count: int, items: int) -> Iterator[Trial]:
    """Yield made-up trials; values rise a little with the weights of the first layers."""
    stream = random.Random(0)
    for i in range(count):
        params = {name: round(1.5 * stream.random(), 4) for name in space.distributions()}
        level = 0.5 + 0.2 * sum(list(params.values())[:4]) / 6
        stopped = len(BASELINES) <= i < count - 9 and stream.random() < 0.4
        seen = items // 4 if stopped else items
        scores = {
            task: [float(stream.random() < level) for _ in range(seen // 2)]
            for task in ("first", "second")
        }
        measured = {"search": Measurement(scores, {"build": 0.1, "model": 2.0, "other": 0.01})}
        if i > count - 9:  # finalists
            measured["select"] = Measurement({task: [1.0] * 100 for task in scores}, {})
        value = sum(map(sum, scores.values())) / (2 * len(scores["first"]))
        yield Trial(
            i,
            "stopped" if stopped else "complete",
            space.recipe(params),
            baseline=BASELINES[i] if i < len(BASELINES) else None,
            params=params,
            weights_digest=f"{i:016x}",
            value=value,
            stderr=(value * (1 - value) / seen) ** 0.5,
            measured=measured,
        )


def summary(done: list[Trial]) -> Report:
    """Return a summary in which the last trial wins."""
    estimate = Estimate(0.7, 0.66, 0.74)
    scored = Scored(**vars(estimate), tasks={"first": estimate, "second": estimate})
    minus = Difference(estimate=0.1, low=0.05, high=0.15)
    last = done[-1]
    named = {name: i for i, name in enumerate(BASELINES)} | {"winner": last.number}
    return Report(
        study="large",
        seed=0,
        trials=dict(Counter(trial.state for trial in done)),
        pools={"search": 500, "select": 200, "report": 1000},
        score={"aggregate": "mean", "entries": [{"name": "first"}, {"name": "second"}]},
        notices=[],
        candidates=[Candidate(name=k, trial=n, report=scored) for k, n in named.items()],
        best_parent="parent:org/one",
        winner=Winner(
            trial=last.number,
            recipe_digest=last.recipe.digest(),
            weights_digest=last.weights_digest,
            search=SearchScore(mean=last.value or 0.0),
            select=scored,
            report=scored,
            minus_best_parent=minus,
            minus_uniform=minus,
            minus_base=minus,
        ),
        cost=Cost(items_scored=1, items_full=2, seconds={"build": 100.0, "model": 2000.0}),
    )


def ids(items: int) -> dict[str, dict[str, list[str]]]:
    """Return pool -> task -> the ids of its items."""
    pools = {"search": items // 2, "select": 100, "report": 500}
    return {
        pool: {t: [f"{t}-{pool}-{i}" for i in range(n)] for t in ("first", "second")}
        for pool, n in pools.items()
    }


def about(data: dict[str, Any], items: int) -> dict[str, Any]:
    """Return what all trials share."""
    return {
        "study": data,
        "parents": {f"org/{name}": "0" * 64 for name in ("base", "one", "two")},
        "tasks": {"first": "made up", "second": "made up"},
        "score": {"aggregate": "mean", "entries": [{"name": "first"}, {"name": "second"}]},
        "pools": pools_of(ids(items)),
        "baselines": {},
        "threads": 1,
        "versions": {"torch": "2"},
        "folder": "..",
    }


def main() -> None:
    """Make a study, write its report, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=32, help="half as many as knobs")
    parser.add_argument("--items", type=int, default=500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder), arguments.trials, arguments.layers, arguments.items)
        start, busy = time.perf_counter(), time.process_time()
        _, record = open_study(str(made))
        opened = time.perf_counter()
        written = pages.write(Path(folder), Found.of(record, "large"))
        spent = time.perf_counter() - start
        busy = time.process_time() - busy
        size = max(file.stat().st_size for file in written)
    found = {
        "open": round(opened - start, 2),
        "seconds": round(spent, 2),
        "processor seconds": round(busy, 2),
        "bytes": size,
        "seconds/most": round(spent / SECONDS, 3),
        "bytes/most": round(size / BYTES, 3),
    }
    print(
        f"{arguments.trials} trials, {2 * arguments.layers} knobs, {arguments.items} items: "
        f"{spent:.1f} s ({opened - start:.1f} s of it to open), {size / 1e6:.2f} MB"
    )
    print(json.dumps(found))


def make(folder: Path, count: int, layers: int, items: int) -> Path:
    """Make up a study in a folder; returns its file."""
    file = folder / "study.yaml"
    file.write_text(STUDY, encoding="utf-8")
    spec = study_file.read(file)
    tensors = [f"model.layers.{i}.{part}.weight" for i in range(layers) for part in PARTS]
    space = Space(spec.template, ["model.embed_tokens.weight", *tensors, "model.norm.weight"])
    record = open_record(spec.storage, spec.name, create=True)
    record.begin(about(dict(spec.data), items), ids(items))
    for trial in trials(space, count, items):
        record.add(trial, space.distributions())
        if "select" in trial.measured:
            record.add_measured("select", trial.number, trial.measured["select"])
    record.finish(summary(record.trials).to_json())
    return file


if __name__ == "__main__":
    main()

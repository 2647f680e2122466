"""Question: does a large study open in a moment, and is it small on disk?

Makes up a study of 500 trials with 64 knobs and 2,000 search items, half of them right or wrong and
half scored by any number, in a real SQLite file through the product's own record. Writes the same
study as format 1 had it beside it. Prints for both the size, the seconds to open (least of three),
and these as multiples of reading the file's bytes; what may be is 30 MB and 3 s. Also prints the
milliseconds that a trial takes to be added at the end of the study (median), with the processor's,
and the share of 8 ms that they are.

    python benchmarks/open_study.py --trials 500 --layers 32 --items 2000
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from search.space.space import Space
from search.spec import study_file
from search.spec.study_file import StudySpec
from search.storage.about import pools_of
from search.storage.open import open_record
from search.storage.study_record import Record
from search.trial.trial import Measurement, Trial

SECONDS, BYTES, MILLISECONDS = 3.0, 30_000_000, 8.0
LAST = 50  # trials whose adding is timed
TASKS = ("right_or_wrong", "graded")
STUDY = """
name: large
recipe:
  merge_method: dare_ties
  base_model: models/base
  models:
    - model: models/one
      parameters: {weight: {low: 0.0, high: 1.5, per: layer}, density: 0.53}
    - model: models/two
      parameters: {weight: {low: 0.0, high: 1.5, per: layer}, density: 0.53}
  dtype: bfloat16
score:
  - {evaluator: lm_eval, task: right_or_wrong}
  - {evaluator: lm_eval, task: graded}
"""
PARTS = (
    *("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    *("self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj",
)


def scores(stream: random.Random, items: int) -> dict[str, list[float]]:
    """Return made-up scores of a pool."""
    half = items // 2
    return {
        TASKS[0]: [float(stream.random() < 0.6) for _ in range(half)],
        TASKS[1]: [stream.gauss(-2.0, 1.0) for _ in range(half)],
    }


def trials(space: Space, count: int, items: int) -> Iterator[Trial]:
    """Yield made-up trials."""
    stream = random.Random(0)
    seconds = {"build": 1.25, "model": 61.0312, "other": 0.0313}
    for i in range(count):
        params = {name: 1.5 * stream.random() for name in space.distributions()}
        yield Trial(
            i,
            "complete",
            space.recipe(params),
            params=params,
            weights_digest=f"{stream.getrandbits(64):016x}",
            value=stream.random(),
            stderr=0.01 * stream.random(),
            measured={"search": Measurement(scores(stream, items), seconds)},
        )


def begin(record: Record, spec: StudySpec, items: int) -> None:
    """Store what all trials share."""
    stream = random.Random(1)
    ids = {
        pool: {t: [f"{stream.getrandbits(64):016x}" for _ in range(items // 2)] for t in TASKS}
        for pool in ("search", "select", "report")
    }
    about = {
        "study": dict(spec.data),
        "parents": {f"models/{name}": "0" * 64 for name in ("base", "one", "two")},
        "tasks": dict.fromkeys(TASKS, "made up"),
        "pools": pools_of(ids),
        "baselines": {},
        "threads": 1,
        "folder": "..",
    }
    record.begin(about, ids)


def make(folder: Path, count: int, layers: int, items: int) -> tuple[str, list[float], list[float]]:
    """Make up a study; returns its storage, and seconds by the clock and the processor per add."""
    file = folder / "study.yaml"
    file.write_text(STUDY, encoding="utf-8")
    spec = study_file.read(file)
    tensors = [f"model.layers.{i}.{part}.weight" for i in range(layers) for part in PARTS]
    space = Space(spec.template, ["model.embed_tokens.weight", *tensors, "model.norm.weight"])
    record = open_record(spec.storage, spec.name, create=True)
    stream, clock, busy = random.Random(2), [], []
    with record.writing():
        begin(record, spec, items)
        for trial in trials(space, count, items):
            start, began = time.perf_counter(), time.process_time()
            record.add(trial, space.distributions())
            clock.append(time.perf_counter() - start)
            busy.append(time.process_time() - began)
        for number in range(10):  # finalists
            for pool in ("select", "report"):
                found = Measurement(scores(stream, items), {"build": 1.25, "model": 60.0})
                record.add_measured(pool, number, found)
    return spec.storage, clock[-LAST:], busy[-LAST:]


def as_format_1(url: str, folder: Path) -> str:
    """Copy a study and store it as format 1 did; returns its storage."""
    record = open_record(url)
    file = folder / "format1.db"
    shutil.copy(url.removeprefix("sqlite:///"), file)
    with sqlite3.connect(file) as database:
        for trial in record.trials:
            text = json.dumps(trial.search.scores)
            where = "trial_id = ? and key = 'scores'"
            database.execute(
                f"update trial_user_attributes set value_json = ? where {where}",
                [text, trial.number + 1],
            )
            for pool in trial.measured.keys() - {"search"}:
                found = trial.measured[pool]
                plain = {"scores": found.scores, "seconds": found.seconds}
                _set(database, f"{pool}:{trial.number}", plain)
        assert record.about is not None
        ids = {pool: record.item_ids(pool) for pool in record.about["pools"]}
        _set(database, "mergetune", {**record.about, "format": 1, "pools": ids})
        database.execute("delete from study_user_attributes where key = 'items'")
        database.execute("delete from trial_user_attributes where key like '%/%'")
    database.execute("vacuum")
    database.close()
    return f"sqlite:///{file}"


def _set(database: sqlite3.Connection, key: str, value: Any) -> None:
    database.execute(
        "update study_user_attributes set value_json = ? where key = ?", [json.dumps(value), key]
    )


def measured(url: str) -> dict[str, Any]:
    """Return size and times of a study."""
    file = Path(url.removeprefix("sqlite:///"))
    reading, opening = (_least(work) for work in (file.read_bytes, lambda: open_record(url)))
    size = file.stat().st_size
    return {
        "MB": round(size / 1e6, 2),
        "seconds": round(opening, 2),
        "times reading": round(opening / reading),
        "MB/most": round(size / BYTES, 3),
        "seconds/most": round(opening / SECONDS, 3),
    }


def _least(work: Callable[[], object]) -> float:
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return min(spent)


def main() -> None:
    """Make both studies, open them, print one JSON row each, and one on adding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--layers", type=int, default=32, help="half as many as knobs")
    parser.add_argument("--items", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url, clock, busy = make(folder, arguments.trials, arguments.layers, arguments.items)
        print(json.dumps({"format": 2, **measured(url)}))
        print(json.dumps({"format": 1, **measured(as_format_1(url, folder))}))
    once, processor = (1000 * statistics.median(x) for x in (clock, busy))
    row = {"ms": round(once, 2), "processor ms": round(processor, 2)}
    print(json.dumps({"add": row, "processor ms/most": round(processor / MILLISECONDS, 3)}))


if __name__ == "__main__":
    main()

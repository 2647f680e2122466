"""Question: what do ask, tell and record cost on a study that has many settled trials?

Fills a study with random points, in memory for the sampler and in a SQLite file for the record, and
times what follows, as a search does it: ask, tell, add. Prints milliseconds (median of all but the
first, by the clock and of the processor, and the first: what a resumed study pays once), and the
peak memory of the process in MB.
At 10,000 trials ``--no-record`` leaves the database out.

    python benchmarks/sampler_replay.py --trials 1000 --dimensions 64 --samplers cma-es tpe
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe
from search.samplers.ask import ask
from search.samplers.registry import find
from search.storage.open import open_record
from search.storage.study_record import Record
from search.trial.trial import Measurement, Trial

DEFAULT = ("cma-es", "catcma", "tpe", "nsga2", "qmc", "random")
ITEMS = 300
ROUNDS = 20  # some close a generation


def main() -> None:
    """Fill, time, print one JSON row a sampler."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--samplers", nargs="+", default=DEFAULT)
    parser.add_argument("--no-record", action="store_true")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space: dict[str, BaseDistribution] = {
        f"x{i}": FloatDistribution(0.0, 1.0) for i in range(arguments.dimensions)
    }
    rows = np.random.default_rng(0).random((arguments.trials, arguments.dimensions)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        record = None if arguments.no_record else _record(Path(folder), space, rows)
        for name in arguments.samplers:
            choices = {"c": CategoricalDistribution((1, 2, 3))} if name == "catcma" else {}
            print(json.dumps({"sampler": name, **_timed(name, space | choices, rows, record)}))


def _timed(
    name: str, space: dict[str, BaseDistribution], rows: list[list[float]], record: Record | None
) -> dict[str, float]:
    study = optuna.create_study(direction="maximize")
    for row in rows:
        params = {n: row[i] if i < len(row) else 1 for i, n in enumerate(space)}
        made = optuna.trial.create_trial(params=params, distributions=space, value=sum(row))
        study.add_trial(made)
    spent: list[tuple[float, ...]] = []
    for number in range(ROUNDS):
        marks = [_clocks()]
        trial = ask(study, space, find(name), None, 0, len(rows) + number)
        study.tell(trial, float(sum(list(trial.params.values())[: len(rows[0])])))
        marks.append(_clocks())
        if record is not None:
            numbers = {n: v for n, v in trial.params.items() if n != "c"}
            record.add(_trial(len(record.trials), numbers), space)
        marks.append(_clocks())
        spent.append(
            tuple(y - x for i in (1, 2) for x, y in zip(marks[i - 1], marks[i], strict=True))
        )
    wall, cpu, add_wall, add_cpu = (
        round(1e3 * statistics.median(column), 1) for column in zip(*spent[1:], strict=True)
    )
    return {
        "dimensions": len(rows[0]),
        "trials": len(rows),
        "first_ask_ms": round(1e3 * spent[0][0], 1),
        "ask_tell_ms": wall,
        "ask_tell_cpu_ms": cpu,
        "worst_ask_cpu_ms": round(1e3 * max(row[1] for row in spent[1:]), 1),
        "record_ms": add_wall,
        "record_cpu_ms": add_cpu,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _record(folder: Path, space: dict[str, BaseDistribution], rows: list[list[float]]) -> Record:
    record = open_record(f"sqlite:///{folder / 'study.db'}", "toy", create=True)
    for number, row in enumerate(rows):
        record.add(_trial(number, dict(zip(space, row, strict=True))), space)
    return record


def _trial(number: int, params: dict[str, float]) -> Trial:
    scores = {"task": [float(i % 2) for i in range(ITEMS)]}
    seconds = {"build": 0.1, "model": 1.0, "other": 0.1}
    return Trial(
        number=number,
        state="complete",
        recipe=_recipe(list(params.values())),
        params=params,
        weights_digest="0" * 64,
        value=sum(params.values()),
        stderr=0.01,
        measured={"search": Measurement(scores, seconds)},
    )


def _recipe(weights: list[float]) -> Recipe:
    models = [{"model": "one", "parameters": {"weight": weights}}]
    data = {"merge_method": "task_arithmetic", "base_model": "base", "models": models}
    recipe = recipe_reader.parse(data, "recipe", [])
    assert recipe is not None
    return recipe


if __name__ == "__main__":
    main()

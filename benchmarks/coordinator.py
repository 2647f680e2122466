"""Question: how many trials a second can one coordinator ask for, settle and store?

Fake workers answer at once, so all that is measured is the coordinator's own: the sampler's ask,
the recipe, bookkeeping, the database's commit. Prints milliseconds a trial in each tenth of the
study, since much of it grows with the trials that are stored, and trials a second.

    python benchmarks/coordinator.py --workers 64 --trials 10000
    python benchmarks/coordinator.py --workers 1 --trials 300
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from search.run.loop import search
from search.run.resume import open_for
from search.trial.trial import Trial
from search.trial.worker import Job, Result
from search.views.progress_line import hush_libraries
from tests.search import toy

STUDY = """
name: fake
recipe:
  merge_method: task_arithmetic
  base_model: org/base
  models: [{models}]
score:
  - {{evaluator: lm_eval, task: gain}}
items: {{search: {items}, select: 20, report: 20}}
search: {{sampler: {sampler}, seed: 3, trials: {trials}, race: off}}
storage: {storage}
"""
EACH = 4  # knobs of a model: one a layer


class Fake(toy.Toy):
    """Answers at once, with scores that have an optimum and some noise."""

    def __init__(self, spec: Any, count: int, items: int, parents: dict[str, Any]) -> None:
        super().__init__(spec, parents=parents, tasks=[toy.Task("gain", items + 40)])
        self.count, self._items = count, items

    def submit(self, job: Job) -> Future[Result]:
        """Return a result that is there."""
        digest = job.recipe.digest()
        draw = random.Random(digest)
        better = 0.5 + 0.3 * draw.random()
        scores = {"gain": [float(draw.random() < better) for _ in range(self._items)]}
        answer: Future[Result] = Future()
        answer.set_result(Result(digest, scores, {"build": 0.0, "model": 0.0}, engine=self.engine))
        return answer


class Clock(toy.Listener):
    """Notes when trials were settled."""

    def __init__(self, trials: int) -> None:
        super().__init__()
        self.times, self._size = [time.perf_counter()], max(1, trials // 10)

    def settled(self, trial: Trial) -> None:
        """Note it, and print each tenth."""
        self.times.append(time.perf_counter())
        if len(self.times) % self._size == 1 and len(self.times) > 1:
            part = 1000 * (self.times[-1] - self.times[-1 - self._size]) / self._size
            print(f"trials up to {len(self.times):6}: {part:6.1f} ms each", flush=True)


def main() -> None:
    """Run, divide, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--knobs", type=int, default=64)
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--sampler", default="cma-es")
    parser.add_argument("--storage", default="sqlite:///study.db")
    asked = parser.parse_args()
    hush_libraries()
    names = [f"org/{i}" for i in range(asked.knobs // EACH)]
    model = "{{model: {}, parameters: {{weight: {{low: 0.0, high: 1.5, per: layer}}}}}}"
    with tempfile.TemporaryDirectory() as folder:
        text = STUDY.format(
            models=", ".join(model.format(name) for name in names),
            items=asked.items,
            sampler=asked.sampler,
            trials=asked.trials,
            storage=asked.storage,
        )
        spec = toy.spec_of(text, Path(folder))
        parents = dict.fromkeys(("org/base", *names), (1.0, 0.0))
        bench, clock = Fake(spec, asked.workers, asked.items, parents), Clock(asked.trials)
        record = open_for(spec)
        with record.writing():
            search(spec, record, bench, clock, toy.never)
    spent = [b - a for a, b in zip(clock.times, clock.times[1:], strict=False)]
    found = {"trials_per_s": len(spent) / sum(spent), "ms": 1000 * statistics.median(spent)}
    print(json.dumps({"workers": asked.workers, "knobs": asked.knobs, **found}))


if __name__ == "__main__":
    main()

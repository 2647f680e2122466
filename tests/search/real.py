"""A real study in small: the quickstart's models and tasks, few items, few trials."""

import json
import os
import signal
import time
from pathlib import Path

from search.run.study import run
from search.trial.worker import Worker
from search.workers.hire import Staff

QUICKSTART = Path(__file__).resolve().parents[2] / "studies" / "quickstart"
STUDY = """
name: small
recipe:
  merge_method: {method}
  base_model: {models}/base
  models:
    - model: {models}/add
      parameters: {{weight: {{low: 0.0, high: 1.5, per: 2}}{more}}}
    - model: {models}/sort
      parameters: {{weight: {{low: 0.0, high: 1.5, per: 2}}{more}}}
  dtype: float32
score:
  - {{evaluator: lm_eval, task: quickstart_add, include_path: {tasks}}}
  - {{evaluator: lm_eval, task: quickstart_sort, include_path: {tasks}}}
items: {{search: 16, select: 12, report: 20}}
search: {{sampler: {sampler}, seed: 3, trials: {trials}, finalists: 3}}
engine: {{device: cpu, batch_size: 16, threads: 1}}
"""


class Bench(Worker):
    """A worker of which build and score are asked one by one."""

    def build(self, recipe):
        return self.builder.build(recipe)

    def score(self, pool):
        return self.tasks.score(self.builder.live, pool)


class Quiet:
    """Progress that nobody reads."""

    def begin(self, total, settled, hours=None, workers=1):
        self.total = total

    def settled(self, trial):
        pass

    def phase(self, name):
        pass

    def stage(self, text, left=None):
        pass

    def notice(self, text):
        pass


def write_study(
    folder, *, method="task_arithmetic", sampler="cma-es", trials=4, models=None, more=""
):
    """Write a small study file and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    text = STUDY.format(
        method=method,
        models=models or QUICKSTART / "models",
        tasks=QUICKSTART / "tasks",
        sampler=sampler,
        trials=trials,
        more=more,
    )
    (folder / "study.yaml").write_text(text)
    return folder / "study.yaml"


def worker_of(spec, record):
    """Return a worker of a study that is stored."""
    return Worker(spec.data, spec.folder, record.about)


def run_whole(study, workers=1):
    """Run a study to its end and return its summary."""
    report = run(study, Quiet(), lambda: False, staff=Staff(workers))
    return None if report is None else report.to_json()


def run_and_kill(study, after):
    """Run a study in a child process, kill -9 it ``after`` seconds; return whether it had ended."""
    child = os.fork()
    if child == 0:
        try:
            run_whole(study)
        finally:
            os._exit(0)
    end = time.monotonic() + after
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def without_costs(summary):
    """Return a summary without what two runs may differ in."""
    return json.loads(json.dumps({k: v for k, v in summary.items() if k != "cost"}))

"""Question: what does a trial cost beside its model calls?

Runs a copy of the quickstart study without its stored results and splits the wall time of every
searched trial: model calls, building the candidate, and the rest (ask, bookkeeping, the database's
commit). Prints seconds, and the ratio (build + rest) / model calls, from one run.

    python benchmarks/overhead.py --trials 20 --sampler cma-es
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import yaml

from search.run.loop import search
from search.run.resume import open_for
from search.spec import study_file
from search.trial.progress import Unheard
from search.trial.trial import Trial
from search.trial.worker import Worker
from search.views.progress_line import hush_libraries

STUDY = Path(__file__).resolve().parents[1] / "studies" / "quickstart"


class Stopwatch(Unheard):
    """Notes the wall time between two settled trials."""

    def __init__(self) -> None:
        self._last = 0.0
        self.walls: list[float] = []
        self.trials: list[Trial] = []

    def begin(self, total: int, settled: list[Trial], hours: float | None = None) -> None:
        """Start the first trial's time."""
        self._last = time.perf_counter()

    def settled(self, trial: Trial) -> None:
        """End a trial's time and start the next one's."""
        now = time.perf_counter()
        if trial.baseline is None and trial.same_as is None:
            self.walls.append(now - self._last)
            self.trials.append(trial)
        self._last = now


def main() -> None:
    """Run, split, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--sampler", default="cma-es")
    arguments = parser.parse_args()
    hush_libraries()
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        spec = _spec(arguments, Path(folder))
        record = open_for(spec)
        search(spec, record, Worker(spec.data, spec.folder), watch, lambda: False)
    model = [trial.search.seconds["model"] for trial in watch.trials]
    build = [trial.search.seconds["build"] for trial in watch.trials]
    rest = [w - m - b for w, m, b in zip(watch.walls, model, build, strict=True)]
    ratio = [(b + r) / m for b, r, m in zip(build, rest, model, strict=True)]
    found = {"model_s": model, "build_s": build, "rest_s": rest, "overhead_over_model": ratio}
    for name, values in found.items():
        print(
            f"{name:20} median {statistics.median(values):.4f} "
            f"(min {min(values):.4f}, max {max(values):.4f}, n={len(values)})"
        )
    print(json.dumps({name: statistics.median(values) for name, values in found.items()}))


def _spec(arguments: argparse.Namespace, folder: Path) -> study_file.StudySpec:
    data = yaml.safe_load((STUDY / study_file.FILE).read_text(encoding="utf-8"))
    data["search"] |= {"trials": arguments.trials, "sampler": arguments.sampler}
    data["storage"] = f"sqlite:///{folder / 'study.db'}"
    document = study_file.Document("overhead", data, {})
    return study_file.of_document(document, STUDY)


if __name__ == "__main__":
    main()

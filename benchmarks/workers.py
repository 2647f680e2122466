"""Question: how many more trials a second do two workers make of the quickstart than one?

Runs a copy of the quickstart by one worker (the coordinator itself) and by several processes, each
with one thread of the CPU, in turn; so it needs as many cores that do nothing else. Counts the
trials of the search, from the moment when the first is begun (starting workers included) to the
last one. Prints trials a second, how busy the workers were, and the ratio.

    python benchmarks/workers.py --workers 2 --rounds 2
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from search.run.study import run
from search.trial.progress import Phase, Unheard
from search.trial.trial import Trial
from search.views.progress_line import hush_libraries
from search.workers.hire import Staff

STUDY = Path(__file__).resolve().parents[1] / "studies" / "quickstart"


class Clock(Unheard):
    """Notes when the search begins and ends."""

    def __init__(self) -> None:
        self.begun = self.last = 0.0
        self.trials = 0
        self.said = ""

    def begin(
        self, total: int, settled: list[Trial], hours: float | None = None, workers: int = 1
    ) -> None:
        """Start the clock."""
        self.begun = time.perf_counter()

    def settled(self, trial: Trial) -> None:
        """Count a trial."""
        self.trials += 1
        self.last = time.perf_counter()

    def phase(self, name: Phase) -> None:
        """Pass over it."""

    def notice(self, text: str) -> None:
        """Keep what is said of the workers."""
        if "at work" in text:
            self.said = text


def main() -> None:
    """Run, divide, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sampler", default="auto", help="auto: steps by gradient; cma-es: draws")
    asked = parser.parse_args()
    hush_libraries()
    found: dict[int, list[float]] = {1: [], asked.workers: []}
    whole: dict[int, list[float]] = {1: [], asked.workers: []}
    for _ in range(asked.rounds):
        for count in (1, asked.workers):
            with tempfile.TemporaryDirectory() as folder:
                place, clock = Path(folder) / "quickstart", Clock()
                shutil.copytree(STUDY, place, ignore=shutil.ignore_patterns("results", "saved"))
                file = place / "study.yaml"
                text = file.read_text(encoding="utf-8")
                file.write_text(text.replace("sampler: auto", f"sampler: {asked.sampler}"))
                start = time.perf_counter()
                run(file, clock, lambda: False, staff=Staff(count))
                whole[count].append(time.perf_counter() - start)
            found[count].append(clock.trials / (clock.last - clock.begun))
            print(f"{count} at a time: {found[count][-1]:.2f} trials/s  {clock.said}", flush=True)
    each = {k: statistics.median(x) for k, x in found.items()}
    seconds = {k: statistics.median(x) for k, x in whole.items()}
    ratio = each[asked.workers] / each[1]
    runs = seconds[1] / seconds[asked.workers]
    print(
        f"trials a second, {asked.workers} workers against one: {ratio:.2f}; whole runs: {runs:.2f}"
    )
    print(json.dumps({"trials_per_s": each, "ratio": ratio, "run_seconds": seconds}))


if __name__ == "__main__":
    main()

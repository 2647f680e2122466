"""`make soak`: a small real study is killed, filled up and doubled at random; it must end the same.

Every round starts from nothing: runs and exports are killed at random moments, or their files may
not grow past a random size, or two of them write at once, until one run ends by itself. Then
trials, scores, summary and the model's bytes are those of an unbroken run, and nothing is left
beside the results.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from merge_core.errors import MergeError
from search.report import files
from search.storage.locate import open_study, winner
from search.trial.builder import Builder
from tests.search.real import run_whole, without_costs, write_study

REFUSED, BROKEN = 3, 4  # how a child ends: by an error of ours, by another
Found = dict[str, Any]


def child(work: Callable[[], object], limit: int | None = None) -> int:
    """Run ``work`` in a copy of this process, whose files may have ``limit`` bytes."""
    made = os.fork()
    if made:
        return made
    try:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        work()
        os._exit(0)
    except MergeError as error:
        os._exit(BROKEN if "\n" in str(error) else REFUSED)
    except BaseException:
        traceback.print_exc()
        os._exit(BROKEN)
    raise AssertionError("a child went on")


def ended(made: int, seconds: float | None = None) -> int:
    """Wait for a child, and kill it after so long; return its exit code, or minus the signal's."""
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        found, status = os.waitpid(made, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if until is not None and time.monotonic() > until:
            os.kill(made, signal.SIGKILL)
            until = None
        time.sleep(0.01)


def export(study: Path) -> None:
    """Write the winner's model folder beside the study."""
    spec, record = open_study(str(study))
    trial, _ = winner(record)
    files.export(Builder(spec, record.about), trial, study.parent / "out", overwrite=True)


def found(study: Path) -> Found:
    """Return what must be the same after every round."""
    _, record = open_study(str(study))
    results = study.parent / "results"
    summary = without_costs(json.loads((results / "summary.json").read_text()))
    model = results / "best-model" / "model.safetensors"
    trials = [
        (t.number, t.recipe.digest(), t.search.scores, t.weights_digest, t.gradient)
        for t in record.trials
    ]
    return {"summary": summary, "trials": trials, "model": model.read_bytes()}


def left_over(study: Path) -> list[str]:
    """Return hidden names beside results and exports, other than the lock's."""
    places = (study.parent, study.parent / "results")
    names = [path.name for place in places for path in place.iterdir()]
    return [name for name in names if name.startswith(".") and name != ".writer.lock"]


def soak(folder: Path, kills: int, full: int, seed: int, sampler: str = "auto") -> dict[str, int]:
    """Break a study so often, compare each that ends, and return how often what happened.

    Args:
        folder: Where the studies are made.
        kills: Runs and exports to kill.
        full: Runs whose files may not grow past a random size.
        seed: Of what is drawn.
        sampler: Of the studies; ``auto`` steps by gradient.
    """
    draw, counts = random.Random(seed), {"killed": 0, "full": 0, "refused": 0, "ended": 0}
    study = write_study(folder / "unbroken" / "small", sampler=sampler)
    run_whole(study)  # here, so that every child has its libraries
    whole = found(study)
    begun, again = time.monotonic(), write_study(folder / "again" / "small", sampler=sampler)
    assert ended(child(lambda: run_whole(again))) == 0
    long = time.monotonic() - begun
    while counts["killed"] < kills or counts["full"] < full:
        one = write_study(folder / "broken" / "small", sampler=sampler)
        while not _broken_once(one, draw, long, counts, counts["full"] < full):
            pass
        assert ended(child(lambda s=one: run_whole(s))) == 0
        assert found(one) == whole
        ended(child(lambda s=one: export(s)), draw.random() * long / 4)
        assert ended(child(lambda s=one: export(s))) == 0
        assert (one.parent / "out" / "model.safetensors").read_bytes() == whole["model"]
        assert not left_over(one)
        counts["ended"] += 1
        print(f"{time.monotonic() - begun:.0f} s: {counts}", flush=True)
        shutil.rmtree(folder / "broken")
    return counts


def _broken_once(
    study: Path, draw: random.Random, long: float, counts: dict[str, int], full: bool
) -> bool:
    """Start a run that is killed or meets a full disk; return if one ended."""
    limit = int(2 ** draw.uniform(10, 22)) if full and draw.random() < 0.5 else None
    first = child(lambda: run_whole(study), limit)
    second = child(lambda: run_whole(study)) if draw.random() < 0.2 else None
    code = ended(first, draw.random() * long if limit is None else None)
    other = None if second is None else ended(second, draw.random() * long)
    assert BROKEN not in (code, other)
    counts["killed"] += [code, other].count(-signal.SIGKILL)
    counts["refused"] += [code, other].count(REFUSED)
    counts["full"] += limit is not None and code == REFUSED
    return 0 in (code, other)


def main() -> None:
    """Read the command line and soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--full", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sampler", default="auto", help="auto steps by gradient")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("\n", soak(Path(folder), asked.kills, asked.full, asked.seed, asked.sampler))


if __name__ == "__main__":
    main()

"""Question: does ``mergetune merge`` need less memory and time than ``mergekit-yaml``?

Runs both on the same recipe, as whole processes in alternating rounds, and prints for each method
our resident memory over mergekit's (``ru_maxrss``: what ``/usr/bin/time`` shows, mapped files
included) and mergekit's seconds over ours, processor's and by the clock. Three parents of 1 GB of
bfloat16 by default. The processor's time is what another program on the machine changes least.

    python benchmarks/beside_mergekit.py --gigabytes 1 --methods linear slerp ties dare_ties
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from parents import commands, make_parents


class Used(NamedTuple):
    """What one process took."""

    resident: int  # bytes at most
    processor: float  # seconds of all its threads
    clock: float


def used(command: list[str], folder: Path, threads: int) -> Used:
    """Run a program that writes into ``folder / "out"``.

    Raises:
        SystemExit: It failed.
    """
    shutil.rmtree(folder / "out", ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=folder, env=environment, **quiet)  # type: ignore[call-overload]
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    spent = usage.ru_utime + usage.ru_stime
    return Used(usage.ru_maxrss * 1024, spent, time.perf_counter() - start)


def compare(
    name: str, folder: Path, names: list[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Return the medians of both and their ratios."""
    theirs, ours = commands(name, folder, names)
    rounds = [
        (used(theirs, folder, options.threads), used(ours, folder, options.threads))
        for _ in range(options.rounds)
    ]
    row: dict[str, Any] = {"method": name}
    for i, who in enumerate(("mergekit", "mergetune")):
        for field in Used._fields:
            row[f"{who}_{field}"] = statistics.median(getattr(pair[i], field) for pair in rounds)
    for field in Used._fields:
        row[f"{field}_ratio"] = row[f"mergetune_{field}"] / row[f"mergekit_{field}"]
    return row


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of a parent")
    parser.add_argument("--experts", type=int, default=2, help="models beside the base")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=1)
    usual = ["linear", "slerp", "ties", "dare_ties"]
    parser.add_argument("--methods", nargs="+", metavar="NAME", default=usual)
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        given = Path(place), options.gigabytes * 500, options.experts
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a program inherits our peak
            names = pool.submit(make_parents, *given).result()
        for name in options.methods:
            rows.append(compare(name, Path(place), names, options))
            if not options.json:
                print(
                    "{method:12} mergetune/mergekit: resident {resident_ratio:.2f} "
                    "({mergetune_resident:.2e} / {mergekit_resident:.2e} bytes), processor "
                    "{processor_ratio:.2f} ({mergetune_processor:.1f} / {mergekit_processor:.1f} "
                    "s), clock {clock_ratio:.2f} ({mergetune_clock:.1f} / {mergekit_clock:.1f} s)"
                    "".format(**rows[-1]),
                    flush=True,
                )
    found = {"benchmark": "beside_mergekit", "gigabytes": options.gigabytes, "rows": rows}
    print(json.dumps(found | {"threads": options.threads, "experts": options.experts}))


if __name__ == "__main__":
    main()

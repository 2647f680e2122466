"""Question: is ``mergetune merge`` faster than ``mergekit-yaml`` on the same recipe?

Prints mergekit / mergetune for every method that both have: whole processes, the same bfloat16
parents, the same float32 arithmetic, in alternating rounds. Above 1 is faster than mergekit. The
first line is what the two programs need for parents of next to no size.

    python benchmarks/time_merge.py --millions 100 --rounds 3
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
from pathlib import Path
from typing import Any

from parents import commands, make_parents

BEYOND = ("consensus_ta", "iso_c", "tsv_m")  # methods that mergekit does not have


def seconds(command: list[str], folder: Path, threads: int) -> float:
    """Return how long a program takes that writes into ``folder / "out"``."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, env=environment, capture_output=True)
    return time.perf_counter() - start


def compare(
    name: str, folder: Path, names: list[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Return seconds of both and their ratio: medians of alternating rounds."""
    theirs, ours = commands(name, folder, names)
    pairs = [
        (seconds(theirs, folder, options.threads), seconds(ours, folder, options.threads))
        for _ in range(options.rounds)
    ]
    return {
        "method": name,
        "mergekit_s": statistics.median(a for a, _ in pairs),
        "mergetune_s": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
        "least": min(a / b for a, b in pairs),
    }


def main() -> None:
    """Parse, measure, print."""
    from merge_core.methods.registry import METHODS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--millions", type=float, default=100, help="parameters of a model")
    parser.add_argument("--experts", type=int, default=2, help="models beside the base")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="all if not given")
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    options = parser.parse_args()
    names = [name for name in options.methods or METHODS.names() if name not in BEYOND]
    rows = []
    with tempfile.TemporaryDirectory() as place:
        tiny, folder = Path(place) / "tiny", Path(place) / "parents"
        tiny.mkdir()
        folder.mkdir()
        few = make_parents(tiny, 0.1, options.experts)
        parents = make_parents(folder, options.millions, options.experts)
        jobs = [("linear", tiny, few), *((name, folder, parents) for name in names)]
        for i, (name, where, models) in enumerate(jobs):
            row = compare(name, where, models, options) | {"nothing_to_do": i == 0}
            rows.append(row)
            if not options.json:
                shown = "{mergekit_s:.1f} s / {mergetune_s:.1f} s, least {least:.2f}".format(**row)
                label = "(start-up)" if i == 0 else name
                print(f"{label:16} mergekit/mergetune {row['ratio']:5.2f} ({shown})", flush=True)
    found = {"benchmark": "time_merge", "millions": options.millions, "rows": rows}
    print(json.dumps(found | {"threads": options.threads, "experts": options.experts}))


if __name__ == "__main__":
    main()

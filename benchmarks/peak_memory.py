"""Question: how much memory does ``mergetune merge`` need beside the pages of its files?

Prints the greatest anonymous memory of the process (RssAnon of Linux: what is not backed by a file)
over the size of one parent, for every method asked for. Three parents of 1 GB of bfloat16 by
default: what has to be held whole would show as 1 or more.

    python benchmarks/peak_memory.py --gigabytes 1 --methods linear ties dare_ties della
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from memory import anonymous
from parents import make_parents, recipe_for


def peak(command: list[str], folder: Path) -> tuple[int, float]:
    """Run a program; return its greatest anonymous memory in bytes, and its seconds."""
    start, most = time.perf_counter(), 0
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE) as process:
        while process.poll() is None:
            most = max(most, anonymous(process.pid))
            time.sleep(0.005)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return most, time.perf_counter() - start


def measure(name: str, folder: Path, names: list[str]) -> dict[str, Any]:
    """Return one row."""
    from merge_core.methods.registry import method

    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "recipe.yaml").write_text(recipe_for(method(name), names).to_yaml())
    program = str(Path(sys.executable).with_name("mergetune"))
    most, took = peak([program, "merge", "recipe.yaml", "out"], folder)
    size = (folder / "base" / "model.safetensors").stat().st_size
    return {"method": name, "peak_gb": most / 1e9, "over_parent": most / size, "seconds": took}


def main() -> None:
    """Parse, measure, print."""
    from merge_core.methods.registry import METHODS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of a parent")
    parser.add_argument("--experts", type=int, default=2, help="models beside the base")
    parser.add_argument("--methods", nargs="+", metavar="NAME", default=["linear", "ties"])
    parser.add_argument("--all", action="store_true", help="every method")
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        names = make_parents(Path(place), options.gigabytes * 500, options.experts)
        for name in METHODS.names() if options.all else options.methods:
            rows.append(measure(name, Path(place), names))
            if not options.json:
                print(
                    "{method:16} peak/parent {over_parent:.2f} ({peak_gb:.2f} GB anonymous, "
                    "{seconds:.0f} s)".format(**rows[-1]),
                    flush=True,
                )
    print(json.dumps({"benchmark": "peak_memory", "gigabytes": options.gigabytes, "rows": rows}))


if __name__ == "__main__":
    main()

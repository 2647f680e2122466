"""``make sweep``: every class that can be made tiny, in three types; prints a table.

make sweep ARGS="--only Qwen2 --only Llama"     classes whose names have one of these in them
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import transformers

from tests.sweep import same, tiny

LEAST = 60  # classes that must be right in float32


def main() -> int:
    """Sweep; return 1 if a class differs, or if too few can be looked at."""
    parser = argparse.ArgumentParser(prog="make sweep", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="part of a class's name")
    parser.add_argument("--least", type=int, default=LEAST, help="classes that must be right")
    asked = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    names = [name for name in tiny.classes() if any(x in name for x in asked.only or [""])]
    counts: Counter[str] = Counter()
    for name in names:
        for dtype, said in rows(name):
            counts[said.partition(":")[0] + f" {dtype}"] += 1
            print(f"{name:45} {dtype:9} {said}", flush=True)
    print("\n".join(f"{count:4} {what}" for what, count in sorted(counts.items())))
    wrong = sum(count for what, count in counts.items() if what.startswith("WRONG"))
    return int(wrong > 0 or counts["ok float32"] < min(asked.least, len(names)))


def rows(name: str) -> list[tuple[str, str]]:
    """Return what became of a class in each type: ``ok``, or why not."""
    try:
        found = tiny.config(name)
    except Exception as error:  # a size that the rules do not get right, an input that is no text
        return [("", f"not tiny: {_line(error)}")]
    return [(dtype, _said(name, found, dtype)) for dtype in same.DTYPES]


def _said(name: str, found: object, dtype: str) -> str:
    with tempfile.TemporaryDirectory(prefix="mergetune-sweep-") as folder:
        try:
            same.check(name, found, dtype, Path(folder))
        except same.NotStoredError as error:
            return f"not stored: {_line(error)}".replace(folder, "")
        except Exception as error:
            return f"WRONG: {_line(error)}".replace(folder, "")
    return "ok"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


if __name__ == "__main__":
    sys.exit(main())

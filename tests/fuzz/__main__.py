"""``make fuzz``: spoilt inputs of every kind, a table of what became of them, the bad ones kept.

make fuzz ARGS="--count 20000"                                  more of them
make fuzz ARGS="--kind recipe --seed 7 --first 153 --count 1"   one again, as the table names it
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.fuzz import spoil, template
from tests.fuzz.kinds import KINDS, Kind
from tests.fuzz.worker import BAD, OUTCOMES, Outcome, Worker

KEPT = 3  # bad inputs of one kind that fail at one place


class Job(NamedTuple):
    """Inputs of one kind: ``count`` of them from the number ``first`` on."""

    kind: Kind
    seed: int
    first: int
    count: int
    keep: Path  # where bad inputs are kept


def main() -> int:
    """Fuzz; return 1 if any input ended in what must not happen."""
    asked = _arguments()
    kinds = [KINDS[name] for name in asked.kind or KINDS]
    each = -(-asked.count // len(kinds))
    with tempfile.TemporaryDirectory(prefix="mergetune-fuzz-") as name:
        world = Path(name) / "template"
        template.make(world)
        print(f"{each} inputs of each of {len(kinds)} kinds, seed {asked.seed}", flush=True)
        jobs = [Job(kind, asked.seed, asked.first, each, asked.keep) for kind in kinds]
        with ThreadPoolExecutor(asked.workers) as pool:
            counts = list(pool.map(lambda job: _fuzz(job, world), jobs))
    print(_table({kind.name: count for kind, count in zip(kinds, counts, strict=True)}))
    return int(any(count[what] for count in counts for what in BAD))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=13_000, help="inputs of all kinds together")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only of this kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--workers", type=int, default=2, help="kinds at a time")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="for bad inputs")
    return parser.parse_args()


def _fuzz(job: Job, world: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    with Worker(world) as worker:
        valid = worker.run(job.kind.call, {})
        if valid.what != "data":  # then all else would be an error for the same reason
            raise SystemExit(f"{job.kind.name}: what is not spoilt is no data: {valid}")
        for number in range(job.first, job.first + job.count):
            files = job.kind.spoilt(Random(f"{job.kind.name} {job.seed} {number}"), world)
            outcome = worker.run(job.kind.call, files)
            found[outcome.what] += 1
            if outcome.what in BAD:
                seen[outcome.place] += 1
                if seen[outcome.place] <= KEPT:
                    _keep(job, number, files, outcome)
    return found


def _keep(job: Job, number: int, files: spoil.Files, outcome: Outcome) -> None:
    folder = job.keep / f"{job.kind.name.replace(' ', '-')}-{job.seed}-{number}"
    spoil.write(files, folder)
    again = f"--kind '{job.kind.name}' --seed {job.seed} --first {number} --count 1"
    (folder / "WHAT.txt").write_text(
        f'{outcome.what}\nmake fuzz ARGS="{again}"\n{outcome.detail}\n'
    )
    print(f"{folder}: {outcome.place}", file=sys.stderr, flush=True)


def _table(counts: dict[str, Counter[str]]) -> str:
    rows = [("kind", "inputs", *OUTCOMES)]
    for name, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        rows.append((name, str(count.total()), *(str(count[what]) for what in OUTCOMES)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())

"""`make soak`: one study is killed again and again until it has ended; it must end as unbroken.

For each configuration (a storage, a number of workers) a small real study is run unbroken, and
once more with so many kills, spread over its whole length: of the coordinator, of one process that
it has started, or of all at once; some runs meet a disk that is full, or a second run beside them.
After every one of them what is settled must be the unbroken study's, trial by trial, and in the end
all of it: trials, later pools, summary, the model's bytes; nothing is left beside the results.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from merge_core.errors import MergeError
from search.report import files
from search.storage.locate import open_study, winner
from search.trial.builder import Builder
from search.workers import processes
from tests.faults.children import (
    BROKEN,
    REFUSED,
    begun_workers,
    child,
    ended,
    kill_all,
    kill_one,
    started_by,
    workers_begin_in,
)
from tests.faults.same import End, assert_same, assert_settled, end_of
from tests.search.real import run_whole, without_costs, write_study
from tests.servers import Postgres, postgres_programs, running

STORAGES = ("sqlite", "postgres", "journal")
DOUBLED = 0.1  # of the runs have a second one beside them
Url = Callable[[Path], str]  # of a study's folder -> its storage


@dataclass(frozen=True)
class Asked:
    """What is done to one study.

    Args:
        storage: Where it is kept.
        workers: That it has.
        kills: Of its runs.
        full: Runs whose files may not grow past a random size.
        seed: Of what is drawn.
        sampler: Of the study; ``auto`` steps by gradient.
    """

    storage: str
    workers: int
    kills: int
    full: int
    seed: int
    sampler: str

    @property
    def trials(self) -> int:
        """How many are searched: about one is settled between two kills."""
        return max(4, (self.kills + self.full) * 2 // 3)


@dataclass
class Breaker:
    """Breaks runs of one study at random moments, until it was done so often.

    Args:
        asked: What is done.
        study: The study file of the one that is broken.
        unbroken: What must come of it.
    """

    asked: Asked
    study: Path
    unbroken: End
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.asked.seed)
        self._wait = 1.0  # seconds, on average, until a run is killed; follows what it settles

    def break_all(self) -> None:
        """Kill runs so often, and let some meet a full disk."""
        units, settled = settled_of(self.unbroken), 0
        while (left := self.asked.kills - self.counts["kills"]) > 0:
            full = self._draw.random() < (self.asked.full - self.counts["full"]) / left
            ended = self.counts["ended"]
            self._break_one(full)
            now = self._checked()
            fast = now - settled > (units - now) / left  # than each of those that are left may be
            self._wait *= 0.8 if fast or self.counts["ended"] > ended else 1.15
            settled = now
            if sum(self.counts.values()) % 10 == 0:
                print(f"{dict(self.counts)}, {now} of {units} scored", file=sys.stderr, flush=True)

    def _break_one(self, full: bool) -> None:
        limit = int(2 ** self._draw.uniform(12, 22)) if full else None
        first = child(self._run, limit)
        second = child(self._run) if self._draw.random() < DOUBLED else None
        seconds = self._draw.uniform(0, 2 * self._wait)
        self._count(ended(first, None if full else seconds, self._killer()))
        if second is not None:
            self._count(ended(second, seconds, kill_all))
        self.counts["full"] += full

    def _count(self, code: int) -> None:
        assert code != BROKEN, "it ended by an error that is not ours"
        names = {REFUSED: "refused", -signal.SIGKILL: "kills", 0: "ended"}
        self.counts[names[code]] += 1

    def _killer(self) -> Callable[[int], None]:
        return self._draw.choice([kill_one, kill_all, self._kill_a_part])

    def _kill_a_part(self, number: int) -> None:
        """Kill one process that a run has started, and the run a little later."""
        parts = started_by(number) + begun_workers()
        if parts:
            kill_one(self._draw.choice(parts))
            self.counts["of parts"] += 1
            time.sleep(self._draw.uniform(0, self._wait))
        kill_one(number)

    def _run(self) -> None:
        run_whole(self.study, self.asked.workers)

    def _checked(self) -> int:
        """Compare what is settled by now, and return how much that is."""
        try:
            found = end_of(str(self.study))
        except MergeError:
            return 0  # it has not begun
        assert_settled(found, self.unbroken)
        return settled_of(found)


def settled_of(end: End) -> int:
    """Return how many trials are scored on how many pools."""
    return sum(len(trial["measured"]) for trial in end.trials)


def export(study: Path) -> None:
    """Write the winner's model folder beside the study."""
    spec, record = open_study(str(study))
    trial, _ = winner(record)
    files.export(Builder(spec, record.about), trial, study.parent / "out", overwrite=True)


def left_over(study: Path) -> list[str]:
    """Return hidden names beside results and exports, other than the lock's."""
    places = (study.parent, study.parent / "results")
    names = [path.name for place in places for path in place.iterdir()]
    return [name for name in names if name.startswith(".") and name != ".writer.lock"]


def results_of(study: Path) -> tuple[Any, bytes]:
    """Return summary, without costs, and weights that a finished study has left."""
    results = study.parent / "results"
    summary = without_costs(json.loads((results / "summary.json").read_text()))
    return summary, (results / "best-model" / "model.safetensors").read_bytes()


def soak(folder: Path, asked: Asked, url: Url) -> Counter[str]:
    """Break one study so often, and return how often what happened.

    Raises:
        AssertionError: It is not what the unbroken one is.
    """
    with mock.patch.object(processes, "_SPAWN", workers_begin_in("tests.faults.warm")):
        return _soaked(folder, asked, url)


def _soaked(folder: Path, asked: Asked, url: Url) -> Counter[str]:
    unbroken = written(folder / "unbroken" / "small", asked, url)
    run_whole(unbroken, asked.workers)  # here, so that every child has its libraries
    end, results = end_of(str(unbroken)), results_of(unbroken)
    study = written(folder / "broken" / "small", asked, url)
    breaker = Breaker(asked, study, end)
    breaker.break_all()
    assert ended(child(lambda: run_whole(study, asked.workers))) == 0
    assert_same(str(study), end)
    assert results_of(study) == results
    ended(child(lambda: export(study)), random.Random(asked.seed).random())
    assert ended(child(lambda: export(study))) == 0
    assert (study.parent / "out" / "model.safetensors").read_bytes() == results[1]
    assert not left_over(study)
    breaker.counts["trials"] = len(end.trials)
    return breaker.counts


def written(folder: Path, asked: Asked, url: Url) -> Path:
    """Write a study file, and return its path."""
    study = write_study(folder, sampler=asked.sampler, trials=asked.trials)
    with study.open("a") as file:
        file.write(f"storage: {json.dumps(url(folder))}\n")
    return study


@contextmanager
def storage(kind: str) -> Iterator[Url]:
    """Give each study a storage of one kind; a server runs as long as this context lasts."""
    if kind != "postgres":
        scheme = {"sqlite": "sqlite:///{}/study.db", "journal": "journal:///{}/study.log"}[kind]
        yield scheme.format
        return
    if postgres_programs() is None:
        raise SystemExit("PostgreSQL is not here: install Debian's package postgresql")
    with ExitStack() as stack:
        server = stack.enter_context(contextmanager(running)(Postgres, "postgres"))
        yield lambda _: server.database()


def main() -> None:
    """Read the command line, soak, and print a line for each configuration."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--full", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sampler", default="auto", help="auto steps by gradient")
    parser.add_argument("--storage", choices=STORAGES, help="one, instead of each")
    parser.add_argument("--workers", type=int, help="1 for each storage, and 2 with SQLite")
    said = parser.parse_args()
    pairs = [(kind, said.workers or 1) for kind in STORAGES if said.storage in (None, kind)]
    if said.storage is None and said.workers is None:
        pairs.append(("sqlite", 2))
    for kind, workers in pairs:
        asked = Asked(kind, workers, said.kills, said.full, said.seed, said.sampler)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, storage(kind) as url:
            counts = soak(Path(folder), asked, url)
        took = time.monotonic() - began
        print(f"{kind}, {workers} worker(s): the same; {dict(counts)}; {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()

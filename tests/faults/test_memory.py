"""Memory that runs out: of a candidate it is a failed trial, of a worker its job is done again."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from search.run.study import run as run_study
from search.spec.study_file import StudySpec
from tests.faults.children import BROKEN, child, ended
from tests.faults.same import End, assert_same, assert_settled, end_of
from tests.faults.whole import TEXT, Toy, run
from tests.search.real import Quiet, run_whole, write_study

Study = Callable[..., StudySpec]
MB = 1 << 20


def too_much() -> None:
    torch.empty(2**50)


def no_memory() -> None:
    raise MemoryError


@pytest.mark.parametrize("work", [too_much, no_memory])
def test_a_candidate_that_finds_no_memory_is_a_failed_trial_and_the_search_goes_on(
    study: Study, unbroken: End, work: Callable[[], None]
) -> None:
    spec, other = study(TEXT), study(TEXT, folder="stopped")
    digest = unbroken.trials[11]["weights_digest"]

    def before(bench: list[Toy]) -> Callable[[str], None]:
        return lambda pool: work() if pool != "samples" and bench[0].live.digest == digest else None

    def bench_of(spec: StudySpec) -> Toy:
        made: list[Toy] = []
        made.append(Toy(spec, before(made)))
        return made[0]

    assert run(spec, bench_of(spec)) is not None
    end = end_of(spec.storage)
    failed = [trial for trial in end.trials if trial["state"] == "failed"]
    assert [trial["number"] for trial in failed] == [11]
    assert "memory" in failed[0]["error"].lower()
    for _ in range(12):
        asked = iter([False, False, False])
        if run(other, bench_of(other), lambda left=asked: next(left, True)):  # type: ignore[misc]
            break
    assert_same(other.storage, end)


class Watcher(Quiet):  # type: ignore[no-untyped-call]
    """Does something after each trial of this run."""

    def __init__(self, work: Callable[[int], object]) -> None:
        self._work, self._count = work, 0

    def settled(self, trial: Any) -> None:
        self._count += 1
        self._work(self._count)


@pytest.mark.slow
def test_a_process_that_may_take_no_more_memory_ends_or_goes_on_and_keeps_what_is_settled(
    tmp_path: Path,
) -> None:
    """The limit is the system's own, while one trial is built and scored."""
    study = write_study(tmp_path / "small")

    def bound(count: int) -> None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + 64 * 1024 if count == 5 else hard
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))

    def work() -> None:
        run_study(study, Watcher(bound), lambda: False)

    assert ended(child(work)) != BROKEN
    before = end_of(str(study))
    assert len(before.trials) >= 5
    run_whole(study)
    assert_settled(before, end_of(str(study)))

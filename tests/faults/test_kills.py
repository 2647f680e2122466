"""A study whose runs are killed ends as an unbroken one, wherever they are killed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import count, cycle

import pytest
import sqlalchemy

from merge_core.errors import MergeError
from search.spec.study_file import StudySpec
from search.storage.open import open_record
from tests.faults.children import child, ended
from tests.faults.same import End, assert_same, assert_settled, end_of
from tests.faults.whole import TEXT, run
from tests.search import toy

Study = Callable[..., StudySpec]
RUNS = 200  # that a study may take at most


def die_at_commit(number: int, when: str) -> None:
    """Die at a commit that changes something, the first from now on is 1.

    ``before`` it all is written and nothing of it is stored; ``after`` it, and before its answer,
    the database has all, and nobody has heard of that.
    """
    left, wrote, over = count(number, -1), False, False

    def executing(_: object, __: object, statement: str, *___: object) -> None:
        nonlocal wrote
        wrote = wrote or statement.startswith(("INSERT", "UPDATE", "DELETE"))

    def committing(*_: object) -> None:
        nonlocal wrote, over
        over = wrote and next(left) == 1
        wrote = False
        if over and when == "before":
            toy.die()

    def committed(*_: object) -> None:
        if over:
            toy.die()

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", executing)
    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", committing)
    sqlalchemy.event.listen(sqlalchemy.pool.Pool, "reset", committed)


def broken_run(spec: StudySpec, number: int, when: str) -> int:
    """Run a study and kill it at a commit, unless it ends before; return how it ended."""

    def work() -> None:
        die_at_commit(number, when)
        assert run(spec) is not None

    return ended(child(work))


def check_settled(spec: StudySpec, unbroken: End) -> None:
    """Compare what is settled by now."""
    try:
        record = open_record(spec.storage, spec.name)
    except MergeError:
        return  # it has not begun
    assert_settled(end_of(record), unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_study_whose_runs_are_killed_at_commits_until_it_ends_is_the_unbroken_one(
    study: Study, unbroken: End, when: str
) -> None:
    spec = study(TEXT)
    kills = 0
    for number in cycle([3, 4, 2, 5]):
        code = broken_run(spec, number, when)
        check_settled(spec, unbroken)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        assert kills < RUNS
    print(kills)
    assert kills >= 12
    assert_same(spec.storage, unbroken)

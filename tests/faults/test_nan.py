"""Candidates without a number, wherever they are: failed trials, and the search goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import pytest

from merge_core.errors import MergeError
from search.spec.study_file import StudySpec
from search.storage.open import open_record
from tests.faults.same import End, assert_same, end_of
from tests.faults.whole import TEXT, Toy, run

Study = Callable[..., StudySpec]


class Broken(Toy):
    """Some candidates have no score on a pool, all where none are named.

    Args:
        spec: The study.
        pool: Where they have none.
        digests: Of their weights.
    """

    def __init__(self, spec: StudySpec, pool: str, digests: Collection[str] = ()) -> None:
        super().__init__(spec)
        self._pool, self._digests = pool, digests

    def score(self, pool: str, blocks: Any = None) -> dict[str, list[float]]:
        found = super().score(pool, blocks)
        if pool == self._pool and (not self._digests or self.live.digest in self._digests):
            return {task: [math.nan] * len(scores) for task, scores in found.items()}
        return found


def named(end: End, which: str) -> set[str]:
    """Return the digests of the first candidate, of some that were drawn, or of the winner."""
    numbers = {"first": [0], "middle": [11, 12], "winner": [end.rest["summary"]["winner"]["trial"]]}
    return {end.trials[number]["weights_digest"] for number in numbers[which]}


@pytest.mark.parametrize(
    ("pool", "which"),
    [("search", "first"), ("search", "middle"), ("select", "winner"), ("report", "winner")],
)
def test_a_study_some_of_whose_candidates_have_no_score_is_the_same_however_often_it_is_stopped(
    study: Study, unbroken: End, pool: str, which: str
) -> None:
    spec, other = study(TEXT), study(TEXT, folder="stopped")
    digests = named(unbroken, which)
    assert run(spec, Broken(spec, pool, digests)) is not None
    end = end_of(spec.storage)
    failed = [trial["number"] for trial in end.trials if trial["state"] == "failed"]
    assert bool(failed) == (pool == "search")
    assert pool == "search" or named(end, "winner") != digests
    for _ in range(12):
        asked = iter([False, False, False])
        bench = Broken(other, pool, digests)
        if run(other, bench, lambda left=asked: next(left, True)) is not None:  # type: ignore[misc]
            break
    assert_same(other.storage, end)


def test_a_study_none_of_whose_candidates_has_a_score_ends_and_goes_on_when_they_have(
    study: Study, unbroken: End
) -> None:
    spec = study(TEXT)
    for _ in range(2):
        with pytest.raises(MergeError, match="every baseline failed"):
            run(spec, Broken(spec, "search"))
    assert {t.state for t in open_record(spec.storage, spec.name).trials} == {"failed"}
    assert run(spec) is not None
    found = [t for t in end_of(spec.storage).trials if t["state"] != "failed"]
    assert [t["weights_digest"] for t in found[:5]] == [
        t["weights_digest"] for t in unbroken.trials[:5]
    ]

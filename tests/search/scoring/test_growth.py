"""A report pool that grows keeps what it has, and gets nothing that anybody chose by."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from merge_core.errors import ParameterError
from search.scoring.growth import split_again
from search.scoring.pools import NAMES, Sharing

repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def sharing(sizes: list[int], clusters: list[int], graded: bool = False) -> Sharing:
    """Return some tasks' items; every fourth cluster is one of all tasks."""
    ids = {f"t{i}": [f"t{i}-{k}" for k in range(n)] for i, n in enumerate(sizes)}
    named = {
        task: [
            f"c{k // size}" if k // size % 4 == 0 else f"{task}-c{k // size}"
            for k in range(len(names))
        ]
        for (task, names), size in zip(ids.items(), clusters, strict=True)
    }
    return Sharing(ids, named, frozenset(ids) if graded else frozenset())


@repeatable
@given(
    st.lists(st.tuples(st.integers(24, 60), st.integers(1, 3)), min_size=1, max_size=4),
    st.lists(st.integers(8, 60), min_size=2, max_size=4, unique=True),
    st.booleans(),
    st.integers(0, 99),
)
def test_what_is_there_stays_first_and_what_comes_is_fresh(
    tasks: list[tuple[int, int]], numbers: list[int], rest: bool, seed: int
) -> None:
    found = sharing(*map(list, zip(*tasks, strict=True)), graded=seed % 2 == 0)  # type: ignore[arg-type]
    steps: list[Any] = [*sorted(numbers), *(["rest"] if rest else [])]
    counts: dict[str, Any] = {"search": 12, "select": 10}
    try:
        whole = [
            split_again(found, {**counts, "report": n}, steps[:i], seed)
            for i, n in enumerate(steps)
        ]
    except ParameterError:
        assume(False)
    assert found.clusters is not None
    for before, now in itertools.pairwise(whole):
        assert [now[x] for x in NAMES[:-1]] == [before[x] for x in NAMES[:-1]]
        chose = {
            found.clusters[t][i] for x in NAMES[:-1] for t in now[x].tasks for i in now[x].of(t)
        }
        for task in now["report"].tasks:
            old, new = before["report"].of(task), now["report"].of(task)
            assert new[: len(old)] == old
            assert len({*new}) == len(new)
            fresh = [found.clusters[task][i] for i in new[len(old) :]]
            assert not chose & {*fresh}
    for pools, number in zip(whole, steps, strict=True):
        if number != "rest":
            assert len(pools["report"]) <= max(number, len(whole[0]["report"]))


def test_single_items_come_exactly_as_many_and_as_a_larger_pool_from_the_start_has_them() -> None:
    found = sharing([40, 40], [1, 1])._replace(clusters=None)
    counts: dict[str, Any] = {"search": 20, "select": 20}
    grown = split_again(found, {**counts, "report": 30}, [8, 20], 3)
    assert grown == found.split({**counts, "report": 30}, 3)
    rest = split_again(found, {**counts, "report": "rest"}, [8], 3)
    assert rest == found.split({**counts, "report": "rest"}, 3)
    assert split_again(found, {**counts, "report": 8}, [], 3) == found.split(
        {**counts, "report": 8}, 3
    )


def test_more_than_there_are_is_refused() -> None:
    found = sharing([40], [1])
    with pytest.raises(ParameterError, match="but there are 40 items"):
        split_again(found, {"search": 20, "select": 10, "report": 11}, [8], 0)

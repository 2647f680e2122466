"""The pools are disjoint, exact, and move only for their own reasons."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_core.errors import ParameterError
from search.scoring import pools as splitting
from search.scoring.pools import NAMES, Pool

repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=50)
GOLDEN = {
    "search": Pool(("a", "b"), ((6, 1, 2), (3, 1))),
    "select": Pool(("a", "b"), ((5, 7), (0,))),
    "report": Pool(("a", "b"), ((3, 4), (2,))),
}
REST = {"search": 30, "select": 20, "report": "rest"}


class ItemRef(NamedTuple):
    task: str
    id: str


def items(**sizes: int) -> list[ItemRef]:
    return [ItemRef(task, f"{task}-{i}") for task, n in sizes.items() for i in range(n)]


def split(found: list[ItemRef], counts: Mapping[str, Any], seed: int) -> dict[str, Pool]:
    by_task: dict[str, list[str]] = {}
    for item in found:
        by_task.setdefault(item.task, []).append(item.id)
    return splitting.split(by_task, counts, seed)


def ids(pools: dict[str, Pool], found: list[ItemRef]) -> dict[str, dict[str, list[str]]]:
    """Pool name -> task -> ids in the pool's order."""
    of = {task: [x.id for x in found if x.task == task] for task in pools["search"].tasks}
    return {
        name: {task: [of[task][i] for i in pool.of(task)] for task in pool.tasks}
        for name, pool in pools.items()
    }


def sizes(pool: Pool) -> dict[str, int]:
    return dict(zip(pool.tasks, map(len, pool.positions), strict=True))


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[ItemRef], dict[str, int | str], int]:
    tasks = draw(st.lists(st.integers(3, 60), min_size=1, max_size=6))
    found = items(**{f"t{i}": n for i, n in enumerate(tasks)})
    least = len(tasks)
    search = draw(st.integers(least, len(found) - 2 * least))
    select = draw(st.integers(least, len(found) - search - least))
    report = draw(st.integers(least, len(found) - search - select))
    counts: dict[str, int | str] = {"search": search, "select": select, "report": report}
    if draw(st.booleans()):
        counts["report"] = "rest"
    return found, counts, draw(st.integers(0, 2**40))


@repeatable
@given(cases())
def test_pools_are_disjoint_and_hold_exactly_what_was_asked(
    case: tuple[list[ItemRef], dict[str, int | str], int],
) -> None:
    found, counts, seed = case
    pools = split(found, counts, seed)
    placed = Counter(
        (task, i) for pool in pools.values() for task in pool.tasks for i in pool.of(task)
    )
    left = len(found) - len(pools["search"]) - len(pools["select"])
    assert set(placed.values()) == {1}
    assert (len(pools["search"]), len(pools["select"])) == (counts["search"], counts["select"])
    assert len(pools["report"]) == (left if counts["report"] == "rest" else counts["report"])


@repeatable
@given(cases())
def test_every_task_is_in_every_pool(
    case: tuple[list[ItemRef], dict[str, int | str], int],
) -> None:
    pools = split(*case)
    assert all(positions for pool in pools.values() for positions in pool.positions)


@repeatable
@given(cases(), st.randoms(use_true_random=False))
def test_shuffled_items_land_where_they_were(
    case: tuple[list[ItemRef], dict[str, int | str], int], rng: random.Random
) -> None:
    found, counts, seed = case
    shuffled = rng.sample(found, len(found))
    assert ids(split(shuffled, counts, seed), shuffled) == ids(split(found, counts, seed), found)


@repeatable
@given(st.integers(0, 1000), st.lists(st.integers(1, 4), min_size=30, max_size=60))
def test_items_of_the_same_content_share_a_pool(seed: int, groups: list[int]) -> None:
    names = [f"x{i}" + (f"#{j + 1}" if j else "") for i, n in enumerate(groups) for j in range(n)]
    found = [ItemRef("t", name) for name in [*names, *(f"single{i}" for i in range(9))]]
    pools = ids(split(found, {"search": 10, "select": 9, "report": "rest"}, seed), found)
    homes = {(name.partition("#")[0], pool) for pool in pools for name in pools[pool]["t"]}
    assert len(homes) == len({content for content, _ in homes})


def test_a_tasks_split_does_not_depend_on_the_other_tasks() -> None:
    alone, both = items(a=100), items(b=100, a=100)
    of_one = ids(split(alone, {"search": 30, "select": 20, "report": "rest"}, 7), alone)
    of_two = ids(split(both, {"search": 60, "select": 40, "report": "rest"}, 7), both)
    assert {pool: of_one[pool]["a"] for pool in of_one} == {p: of_two[p]["a"] for p in of_two}


def test_another_seed_gives_other_pools_in_another_order() -> None:
    found = items(a=100)
    one, two = (split(found, REST, seed)["search"].of("a") for seed in (1, 2))
    assert set(one) != set(two)
    assert sorted(one) != list(one)


def test_golden_split() -> None:
    # Made by this file's first version; a change would move the items of every saved study.
    pools = split(items(a=8, b=4), {"search": 5, "select": 3, "report": 3}, seed=7)
    assert pools == GOLDEN


def test_a_prefix_of_the_search_pool_is_a_fair_sample_of_the_task() -> None:
    found = items(a=200)
    counts = {"search": 100, "select": 50, "report": "rest"}
    firsts = Counter(
        i for seed in range(400) for i in split(found, counts, seed)["search"].of("a")[:20]
    )
    # 400 draws of 20 of 200: mean 40, standard deviation sqrt(400 * 0.1 * 0.9) = 6.
    assert max(abs(firsts[i] - 40) for i in range(200)) < 4.5 * 6


def test_numbers_are_shared_by_largest_remainders() -> None:
    # By hand: 10 * (57, 31, 12) / 100 = 5.7, 3.1, 1.2: the one item left over goes to the first.
    pools = split(items(a=57, b=31, c=12), {"search": 10, "select": 10, "report": "rest"}, 0)
    assert sizes(pools["search"]) == {"a": 6, "b": 3, "c": 1}


def test_a_small_task_gets_its_one_item_from_the_others() -> None:
    pools = split(items(big=1000, small=3), {"search": 50, "select": 50, "report": 50}, 0)
    assert [sizes(p) for p in pools.values()] == [{"big": 49, "small": 1}] * 3


def test_what_rounding_gives_a_task_in_one_pool_it_takes_in_another() -> None:
    pools = split(items(a=5, b=5, c=5), {"search": 5, "select": 5, "report": 5}, 0)
    assert list(map(sizes, pools.values())) == [
        {"a": 2, "b": 2, "c": 1},
        {"a": 2, "b": 1, "c": 2},
        {"a": 1, "b": 2, "c": 2},
    ]


@pytest.mark.parametrize(
    ("sizes_", "counts", "message"),
    [
        (
            {"a": 100},
            {"search": 60, "select": 50, "report": "rest"},
            "60 for search, 50 for select and at least 1 for report are 111, but there are 100",
        ),
        (
            {"a": 100},
            {"search": 40, "select": 30, "report": 31},
            "31 for report are 101, but there ",
        ),
        ({"a": 100}, {"search": 99, "select": 1, "report": "rest"}, "are 101, but there are 100"),
        ({"a": 9, "b": 2}, REST, "task b: 2 items, but each of the pools search, select, report"),
        (
            {"a": 9, "b": 9},
            {"search": 5, "select": 1, "report": 2},
            "items.select must be at least 1 for each of the 2 tasks, got 1",
        ),
        ({"a": 9}, {"search": 0, "select": 1, "report": 2}, "items.search must be .* 1 .*, got 0"),
    ],
)
def test_impossible_counts_are_named(
    sizes_: dict[str, int], counts: dict[str, int | str], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        split(items(**sizes_), counts, 0)


def test_an_item_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ParameterError, match="task a: the item id 'a-1' is there 2 times"):
        split([*items(a=5), ItemRef("a", "a-1")], REST, 0)


def test_a_pool_that_no_pair_fits_in_is_refused() -> None:
    found = [ItemRef("a", name) for x in "pqr" for name in (x, f"{x}#2")]
    with pytest.raises(
        ParameterError,
        match=r"^task a: 1 of its 6 items were to be in search, but that gets no cluster; its "
        r"clusters have 2 to 2 items, .* see `cluster`; ask for more in search$",
    ):
        split(found, {"search": 1, "select": 2, "report": 3}, 0)
    pools = split(found, {"search": 2, "select": 3, "report": "rest"}, 0)
    assert [len(pool) for pool in pools.values()] == [2, 2, 2]


def test_pools_are_frozen_values() -> None:
    found = items(a=100)
    one, two = (split(found, REST, 1) for _ in range(2))
    assert {*one.values()} == {*two.values()}


def test_items_of_two_metrics_of_one_task_are_in_the_same_pools():
    both = [ItemRef(task, f"{i:04x}") for task in ("q", "q:margin") for i in range(100)]
    pools = split(both, {"search": 60, "select": 40, "report": "rest"}, 3)
    for name in NAMES:
        pool = pools[name]
        assert sorted(pool.of("q")) == sorted(pool.of("q:margin"))
    odd = split(both, {"search": 61, "select": 41, "report": "rest"}, 3)
    assert {name: len(pool) for name, pool in odd.items()} == {
        "search": 60,
        "select": 40,
        "report": 100,
    }
    for name in NAMES:
        assert odd[name] == pools[name]


def clustered(sizes: list[int], task: str = "t") -> tuple[list[str], list[str]]:
    """Return ids of items, and the names of their clusters, which have these sizes."""
    names = [f"{task}c{c}" for c, size in enumerate(sizes) for _ in range(size)]
    return [f"{task}-{i}" for i in range(len(names))], names


def of_clusters(
    sizes: list[int], counts: Mapping[str, Any], seed: int = 0, graded: bool = False
) -> tuple[dict[str, Pool], list[str]]:
    ids, names = clustered(sizes)
    some = {"t"} if graded else ()
    return splitting.split({"t": ids}, counts, seed, {"t": names}, some), names


@repeatable
@given(
    st.lists(st.integers(1, 8), min_size=12, max_size=80),
    st.integers(8, 40),
    st.booleans(),
    st.integers(0, 1000),
)
def test_clusters_stay_together_and_counts_are_reached_but_for_one(
    sizes: list[int], percent: int, rest: bool, seed: int
) -> None:
    total = sum(sizes)
    count = max(8, total * percent // 100)
    if 3 * count > total:
        return
    counts = {"search": count, "select": count, "report": "rest" if rest else count}
    pools, names = of_clusters(sizes, counts, seed)
    homes: dict[str, set[str]] = {}
    for name, pool in pools.items():
        for i in pool.of("t"):
            homes.setdefault(names[i], set()).add(name)
    assert all(len(home) == 1 for home in homes.values())
    placed = [i for pool in pools.values() for i in pool.of("t")]
    assert len(placed) == len(set(placed))
    assert not rest or len(placed) == total
    left = Counter(names[i] for i in {*range(total)} - {*placed})
    for name in NAMES[: 2 if rest else 3]:
        assert count - max(sizes) < len(pools[name]) <= count
        assert not left or len(pools[name]) + min(left.values()) > count


@repeatable
@given(st.lists(st.integers(1, 6), min_size=20, max_size=40), st.integers(0, 1000))
def test_members_of_a_cluster_stand_next_to_each_other(sizes: list[int], seed: int) -> None:
    pools, names = of_clusters(sizes, {"search": 11, "select": 7, "report": "rest"}, seed)
    for pool in pools.values():
        order = [names[i] for i in pool.of("t")]
        starts = [x for x, before in zip(order, [None, *order], strict=False) if x != before]
        assert len(starts) == len(set(starts))


def test_order_of_clusters_is_random_and_no_other_than_that_of_single_items() -> None:
    ids = [f"t-{i}" for i in range(60)]
    alone = splitting.split({"t": ids}, REST, 3)
    assert splitting.split({"t": ids}, REST, 3, {"t": ids}) == alone
    firsts = Counter()
    for seed in range(400):
        pools, names = of_clusters([3] * 40, {"search": 60, "select": 30, "report": "rest"}, seed)
        firsts[names[pools["search"].of("t")[0]]] += 1
    # 400 draws of one of 40: mean 10, standard deviation sqrt(400 / 40) = 3.2.
    assert len(firsts) >= 36
    assert max(firsts.values()) < 10 + 4.5 * 3.2


def test_shuffled_items_of_clusters_land_where_they_were() -> None:
    ids, names = clustered([1, 2, 3, 4, 5] * 6)
    rng = random.Random(0)
    order = rng.sample(range(len(ids)), len(ids))
    shuffled = [ids[i] for i in order], [names[i] for i in order]

    def placed(ids: list[str], names: list[str]) -> dict[str, list[str]]:
        pools = splitting.split({"t": ids}, REST, 5, {"t": names})
        return {name: [ids[i] for i in pool.of("t")] for name, pool in pools.items()}

    assert placed(*shuffled) == placed(ids, names)


def test_clusters_of_several_tasks_stay_together_over_all_of_them() -> None:
    one, two = clustered([2] * 30, "a"), clustered([3] * 30, "b")
    names = {"a": one[1], "b": [name.replace("b", "a", 1) for name in two[1]]}
    ids = {"a": one[0], "b": two[0]}
    pools = splitting.split(ids, {"search": 50, "select": 51, "report": "rest"}, 1, names)
    found = {
        name: {task: {names[task][i] for i in pool.of(task)} for task in ids}
        for name, pool in pools.items()
    }
    assert all(of["a"] == of["b"] for of in found.values())
    assert [len(pool) for pool in pools.values()] == [50, 50, 50]
    # shares of 50 by size are 20 and 30; a task alone is placed as without the other one's clusters
    assert sizes(pools["search"]) == {"a": 20, "b": 30}


@pytest.mark.parametrize(
    ("sizes_", "graded", "counts", "message"),
    [
        ([50, 50], False, REST, "task t: its 100 items are 2 clusters, but each of the pools"),
        ([50, *[1] * 50], False, REST, "task t: 50 of its 100 items are one cluster, so that the"),
        (
            [1] * 100,
            True,
            {"search": 98, "select": 1, "report": "rest"},
            (
                r"items.select must be at least 1 for each of the 1 tasks, and two for graded ones "
                r"\(t\): 2, got 1"
            ),
        ),
        (
            [1] * 100,
            True,
            {"search": 98, "select": 2, "report": 1},
            r"items.report must be .* graded ones \(t\): 2, got 1",
        ),
        ([1] * 4, True, REST, "task t: 4 items, but .* graded scores .* need two: at least 5"),
        (
            [10] * 12,
            True,
            {"search": 20, "select": 15, "report": "rest"},
            (
                "task t: 15 of its 120 items were to be in select, but that gets one cluster, and "
                "one graded score tells no variance; its clusters have 10 to 10 items, and items "
                "that belong together stay in one pool, see `cluster`; ask for more in select"
            ),
        ),
    ],
)
def test_clusters_that_no_pools_can_be_made_of_are_refused(
    sizes_: list[int], graded: bool, counts: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=f"^{message}"):
        of_clusters(sizes_, counts, graded=graded)


def test_a_cluster_of_twins_may_hold_half_of_a_task() -> None:
    found = [ItemRef("t", name) for name in ("x", "x#2", "y", "z")]
    pools = split(found, {"search": 1, "select": 1, "report": "rest"}, 0)
    assert [len(pool) for pool in pools.values()] == [1, 1, 2]


def test_a_small_graded_task_gets_two_items_where_there_is_an_interval() -> None:
    ids = {"big": [f"big-{i}" for i in range(1000)], "small": [f"small-{i}" for i in range(6)]}
    counts = {"search": 50, "select": 50, "report": 50}
    pools = splitting.split(ids, counts, 0, None, {"small"})
    assert [sizes(p) for p in pools.values()] == [
        {"big": 49, "small": 1},
        {"big": 48, "small": 2},
        {"big": 48, "small": 2},
    ]
    both = splitting.split(ids, counts, 0, None, {"big", "small"})
    assert both == pools


@repeatable
@given(cases())
def test_graded_tasks_with_two_items_anyhow_are_split_as_others(
    case: tuple[list[ItemRef], dict[str, int | str], int],
) -> None:
    found, counts, seed = case
    pools = split(found, counts, seed)
    later = [len(pool.of(task)) for pool in list(pools.values())[1:] for task in pool.tasks]
    if min(later) >= 2:
        by_task: dict[str, list[str]] = {}
        for item in found:
            by_task.setdefault(item.task, []).append(item.id)
        assert splitting.split(by_task, counts, seed, None, {*by_task}) == pools


def test_a_document_that_has_no_room_in_one_task_may_be_left_out_of_it() -> None:
    """Or else the 31 would not get their one report item of those that 51 others have, too."""
    ids = {"a": [f"d-{i}" for i in range(51)], "b": [f"d-{i}" for i in range(31)]}
    for seed in range(40):
        pools = splitting.split(ids, {"search": 48, "select": 4, "report": 2}, seed)
        homes: dict[int, set[str]] = {}
        for name, pool in pools.items():
            for i in (*pool.of("a"), *pool.of("b")):
                homes.setdefault(i, set()).add(name)
        assert all(len(home) == 1 for home in homes.values())
        assert [len(pool) for pool in pools.values()] == [48, 4, 2]


@repeatable
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 2)), min_size=40, max_size=80
    ),
    st.booleans(),
    st.integers(0, 1000),
)
def test_clusters_over_three_tasks_stay_together_and_counts_are_reached_but_for_one(
    members: list[tuple[int, int, int]], rest: bool, seed: int
) -> None:
    """A cluster has so many items of each task."""
    names = {
        task: [f"c{c}" for c, counts in enumerate(members) for _ in range(counts[t])]
        for t, task in enumerate("abc")
    }
    ids = {task: [f"{task}-{i}" for i in range(len(listed))] for task, listed in names.items()}
    total, count = sum(map(len, ids.values())), 40
    if min(map(len, ids.values())) < 20 or total < 3 * count:
        return
    counts = {"search": count, "select": count, "report": "rest" if rest else count}
    pools = splitting.split(ids, counts, seed, names)
    homes: dict[str, set[str]] = {}
    for name, pool in pools.items():
        for task in ids:
            for i in pool.of(task):
                homes.setdefault(names[task][i], set()).add(name)
    assert all(len(home) == 1 for home in homes.values())
    left = [sum(members[c]) for c in range(len(members)) if f"c{c}" not in homes]
    for name in NAMES[: 2 if rest else 3]:
        assert count - 9 < len(pools[name]) <= count
        assert not [size for size in left if 0 < size <= count - len(pools[name])]
    assert not rest or sum(map(len, pools.values())) == total

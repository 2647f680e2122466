"""Units: whole clusters, every task in proportion, an order that is exchangeable."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from merge_core.errors import ParameterError
from search.scoring.units import FIRST, Units


def alone(number: int) -> list[str]:
    return [f"c{i}" for i in range(number)]


def test_one_task_has_one_cluster_a_unit():
    ids = ["a", "a", "b", "c", "c", "c"]
    units = Units.of({"task": ids}, 0)
    assert units.ends == {"task": (2, 3, 6)}
    assert units.count == 3
    assert [units.prefix(u)["task"] for u in range(4)] == [0, 2, 3, 6]


def test_tasks_of_one_size_have_one_cluster_each_in_every_unit():
    units = Units.of({t: alone(120) for t in "xyz"}, 3)
    assert units.count == 120
    assert all(ends == tuple(range(1, 121)) for ends in units.ends.values())


def test_a_tiny_task_does_not_make_all_units_large():
    units = Units.of({"large": alone(200), "mid": alone(180), "tiny": alone(5)}, 0)
    assert units.count == 200
    runs = np.diff((0, *units.ends["tiny"]))
    assert sorted(runs)[-5:] == [1] * 5
    assert units.prefix(200) == {"large": 200, "mid": 180, "tiny": 5}


def test_many_small_tasks_beside_a_large_one_decide():
    units = Units.of({"large": alone(50), **{f"t{i}": alone(10 + i % 3) for i in range(30)}}, 0)
    assert 10 <= units.count <= 12
    assert set(np.diff((0, *units.ends["large"]))) <= {4, 5}


@pytest.mark.parametrize("seed", range(3))
def test_units_never_cut_a_cluster_and_their_runs_differ_by_one_cluster(seed):
    stream = np.random.default_rng(seed)
    sizes = stream.integers(1, 6, 47)
    ids = [f"c{i}" for i, n in enumerate(sizes) for _ in range(n)]
    units = Units.of({"one": ids, "two": alone(101)}, seed)
    starts = {0, *np.cumsum(sizes)}
    assert set(units.ends["one"]) <= starts
    clusters = [len({*ids[a:b]}) for a, b in itertools.pairwise((0, *units.ends["one"]))]
    assert max(clusters) - min(clusters) <= 1
    assert sum(clusters) == 47


def test_every_unit_is_as_likely_as_any_other_to_get_a_longer_run():
    found = Counter(
        int(np.diff((0, *Units.of({"a": alone(10), "b": alone(13)}, seed).ends["a"])).argmin())
        for seed in range(4000)
    )
    # U = 13, three of the units have no item of a; the first of them is in place 0 in 3 of 13
    assert found[0] / 4000 == pytest.approx(3 / 13, abs=0.03)
    assert found[1] / 4000 == pytest.approx(10 / 13 * 3 / 12, abs=0.03)


def test_another_seed_or_task_has_other_longer_runs():
    ends = [Units.of({"a": alone(10), "b": alone(15)}, seed).ends["a"] for seed in range(2)]
    both = Units.of({"a": alone(10), "c": alone(10), "b": alone(30)}, 0)
    assert ends[0] != ends[1]
    assert both.ends["a"] != both.ends["c"]


def test_seen_counts_whole_units():
    units = Units.of({"a": ["x", "x", "y", "z"], "b": alone(3)}, 0)
    assert units.seen({"a": 2, "b": 1}) == 1
    assert units.seen({"a": 3, "b": 1}) == 1
    assert units.seen({"a": 4, "b": 3}) == units.count
    assert units.seen({"a": 1, "b": 3}) == 0
    assert all(units.seen(units.prefix(u)) == u for u in range(units.count + 1))
    with pytest.raises(ParameterError, match="no task other"):
        units.seen({"other": 1})


@pytest.mark.parametrize("number", [1, 2, 7, 8, 9, 30, 120, 1000, 50_000])
@pytest.mark.parametrize("most", [1, 2, 8, 20])
def test_looks_ascend_to_the_whole_pool_and_begin_late_enough(number, most):
    looks = Units.of({"a": alone(number)}, 0).looks(most)
    assert list(looks) == sorted(set(looks))
    assert looks[-1] == number
    assert len(looks) <= most
    assert looks[0] >= min(number, FIRST)


def test_units_of_nothing_are_refused():
    with pytest.raises(ParameterError, match=r"\['b'\] has none"):
        Units.of({"a": ["x"], "b": []}, 0)
    with pytest.raises(ParameterError, match="no task has none"):
        Units.of({}, 0)

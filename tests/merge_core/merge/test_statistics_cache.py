import re
import tracemalloc
from functools import partial
from pathlib import Path

import pytest
import torch

from merge_core.merge import statistics_cache as module
from merge_core.merge.statistics_cache import OF_A_NUMBER, Known
from merge_core.plan.steps import Operand


@pytest.fixture(autouse=True)
def nameless(monkeypatch):
    """Let names take no room, so that sizes are those of the values."""
    monkeypatch.setattr(module, "OF_A_NAME", 0)


def test_names_take_room_of_which_a_study_with_many_numbers_needs_most(monkeypatch):
    monkeypatch.undo()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    known = Known(room=2**30)
    for i in range(2000):
        operands = (Operand("base", "a.weight"), Operand("one", "a.weight"))
        known.of_tensors(("kept", 0.5 + i / 10_000, None, i), operands, lambda i=i: i / 7)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.5 < known.used / (after - before) < 2


def test_value_is_computed_once():
    known, calls = Known(), []

    def compute():
        calls.append(1)
        return 7

    assert [known.get("a", compute) for _ in range(3)] == [7, 7, 7]
    assert len(calls) == 1
    assert known.get("b", compute) == 7
    assert len(calls) == 2


def swept(known, names):
    """Ask for one value of 40 bytes by each name, as a candidate does: which were computed?"""
    computed = []

    def compute(name):
        computed.append(name)
        return torch.zeros(10)

    known.of({})
    for name in names:
        known.get(name, partial(compute, name))
    return computed


@pytest.mark.parametrize("over", [1, 5, 90])
def test_sweep_over_more_values_than_there_is_room_for_finds_all_that_fit(over):
    known, names = Known(room=40 * 100), range(100 + over)
    assert swept(known, names) == list(names)
    for _ in range(30):
        assert swept(known, names) == list(range(100, 100 + over))
    assert known.used == 4000


def test_sweeps_over_parts_in_turn_find_what_fits():
    known, parts = Known(room=40 * 50), [range(i, i + 40) for i in (0, 40, 80)]
    computed = [len(swept(known, parts[i % 3])) for i in range(30)]
    assert computed == [40, 40, 40] + [0, 30, 40] * 9


def test_what_no_candidate_has_asked_for_in_a_while_makes_room():
    known = Known(room=100)
    assert swept(known, "ab") == ["a", "b"]
    for _ in range(module.LONG):
        assert swept(known, "bc") == ["c"]
    assert swept(known, "bc") == ["c"]
    assert swept(known, "bc") == []
    assert known.used == 80
    assert swept(known, "a") == ["a"]


def test_what_is_cheap_makes_room_for_what_is_not():
    known, computed = Known(room=120), []

    def ask(name, cheap):
        def compute():
            computed.append(name)
            return torch.zeros(10)

        known.get(name, compute, cheap=cheap)

    for _ in range(3):
        known.of({})
        for name, cheap in [("a", True), ("b", True), ("c", False), ("d", True), ("e", False)]:
            ask(name, cheap)
        assert known.used == 120
    assert computed == [*"abcde", *"bd", *"bd"]


def test_another_version_takes_the_place_of_a_value_in_a_full_cache():
    known = Known(room=80)
    swept(known, "ab")
    known.get("a", lambda: torch.ones(10), version=2)
    known.get("a", lambda: pytest.fail("version 2 was not kept"), version=2)
    assert swept(known, "b") == []


def test_value_larger_than_the_room_is_given_and_not_kept():
    known = Known(room=100)
    assert known.get("a", lambda: torch.zeros(100)).numel() == 100
    assert known.used == 0


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1.5, OF_A_NUMBER),
        (torch.zeros(3, dtype=torch.int16), 6),
        ([torch.zeros(2), 1], 8 + 2 * OF_A_NUMBER),
        ({"a": torch.zeros(2)}, 8 + OF_A_NUMBER),
    ],
)
def test_size_is_that_of_all_tensors_inside(value, size):
    known = Known()
    known.get("a", lambda: value)
    assert known.used == size


def test_everything_is_forgotten_on_request():
    known = Known()
    known.get("a", lambda: 1)
    known.forget()
    assert known.used == 0
    assert known.get("a", lambda: 2) == 2


def test_seconds_of_a_value_inside_another_count_once():
    known = Known()
    known.get("outer", lambda: known.get("inner", lambda: sum(range(200_000))))
    once = known.seconds
    assert once > 0
    known.get("outer", lambda: pytest.fail("computed again"))
    assert known.seconds == once


def test_other_parents_by_the_same_names_are_not_known():
    known, one, two = Known(), object(), object()
    known.of({"a": one}).get("x", lambda: 1)
    assert known.of({"a": one, "b": two}).get("x", lambda: 2) == 1
    assert known.of({"a": two}).get("x", lambda: 3) == 3


def test_other_parent_by_one_name_leaves_what_is_known_of_the_others():
    known, one, two, three = Known(), object(), object(), object()
    of = {name: Operand(name, "w") for name in ("a", "b")}
    names = [("made", of["a"]), ("cuts", (None, of["b"])), ("both", (of["a"], of["b"]))]
    known.of({"a": one, "b": two})
    assert [known.get(name, lambda: 1) for name in [*names, ("hashed", "b")]] == [1] * 4
    known.of({"a": one, "b": three})
    assert [known.get(name, lambda: 2) for name in [*names, ("hashed", "b")]] == [1, 2, 2, 2]


def test_of_a_value_only_the_last_version_is_kept():
    known = Known()
    assert known.get("a", lambda: torch.zeros(10), version=1).numel() == 10
    assert known.get("a", lambda: torch.zeros(20), version=2).numel() == 20
    known.get("a", lambda: pytest.fail("version 2 was forgotten"), version=2)
    assert known.used == 80
    assert known.get("a", lambda: torch.zeros(5), version=1).numel() == 5
    assert known.used == 20


def test_memory_that_computing_left_is_given_back_once(monkeypatch):
    known, calls = Known(), []
    monkeypatch.setattr(module, "give_back", lambda: calls.append(1))
    known.settle()
    assert calls == []
    known.seconds += module.MUCH
    known.settle()
    known.settle()
    assert calls == [1]


def test_freed_memory_goes_back_to_the_system():
    def held():
        text = Path("/proc/self/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+)", text)[1])

    blocks = [b"x" * (2**16 + i) for i in range(2**11)]  # 128 MiB, each too small for own pages
    top = b"x" * 2**16  # keeps the heap from shrinking by itself
    full = held()
    del blocks
    module.give_back()
    assert full - held() > 100 * 2**10
    assert len(top) == 2**16

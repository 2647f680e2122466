"""Packed scores and ids come back bit for bit; what else stands there is a rule, not a crash."""

from __future__ import annotations

import base64
import math
import struct
import sys
import zlib
from typing import Any

import pytest

from merge_core.errors import Problems
from search.storage import packed
from search.storage.packed import (
    inflated,
    packed_ids,
    packed_scores,
    read_scores,
    unpacked_ids,
)

ODD = [0.1 + 0.2, 1.0, -0.0, 5e-324, -sys.float_info.max, 1 / 3, 2.0**-1074]
SCORES = {"b": ODD, "a": [0.0], "none": []}


def bits(numbers: Any) -> bytes:
    return struct.pack(f"<{len(numbers)}d", *numbers)


def read(value: Any) -> tuple[Any, Problems]:
    problems: Problems = []
    return read_scores(value, "scores", problems), problems


def test_scores_come_back_bit_for_bit_in_their_tasks_order() -> None:
    found, problems = read(packed_scores(SCORES))
    assert not problems
    assert [*found] == [*SCORES]
    assert all(bits(found[task]) == bits(x) for task, x in SCORES.items())
    assert math.copysign(1, found["b"][2]) == -1


def test_the_bytes_are_little_endian_float64_of_one_task_after_the_other() -> None:
    stored = packed_scores(SCORES)
    assert stored["items"] == {"b": 7, "a": 1, "none": 0}
    assert zlib.decompress(base64.b64decode(stored["float64"])) == bits([*ODD, 0.0])


def test_right_or_wrong_takes_a_bit_or_so_of_an_item() -> None:
    scores = {"t": [float(i * i % 7 < 3) for i in range(2000)]}
    assert len(packed_scores(scores)["float64"]) < 400


def test_scores_of_format_1_are_read_also_of_tasks_with_the_names_of_our_keys() -> None:
    found, problems = read({"float64": [1, 0.5], "items": [0.25]})
    assert (found, problems) == ({"float64": [1.0, 0.5], "items": [0.25]}, [])


WHOLE = packed_scores({"t": [0.5, 1.0]})


def of(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("value", "place", "rule"),
    [
        (1, "scores", "expected a mapping, got 1"),
        ({"t": [0.5, "x"]}, "scores", "expected"),
        ({"t": [math.inf]}, "scores", "expected"),
        ({"float64": 3, "items": {"t": 2}}, "scores", "expected a mapping"),
        (WHOLE | {"float64": "%%%"}, "scores.float64", "expected zlib data in base64"),
        (WHOLE | {"float64": "é"}, "scores.float64", "expected zlib data in base64"),
        (WHOLE | {"float64": of(b"raw")}, "scores.float64", "expected zlib data in base64"),
        (WHOLE | {"float64": WHOLE["float64"][:-8]}, "scores.float64", "expected zlib data"),
        (WHOLE | {"float64": of(zlib.compress(b"12345678"))}, "scores.float64", "got 8 bytes"),
        (WHOLE | {"items": {"t": 1}}, "scores.float64", "expected at most 8 bytes, got more"),
        (WHOLE | {"items": {"t": 3}}, "scores.float64", "expected 3 scores, got 16 bytes"),
        (WHOLE | {"items": {"t": -2}}, "scores.items", "expected how many"),
        (WHOLE | {"items": {"t": True}}, "scores.items", "expected how many"),
        (WHOLE | {"items": {"t": 2**60}}, "scores.items", "expected how many"),
        (WHOLE | {"items": [2]}, "scores.items", "expected how many"),
        (packed_scores({"t": [math.nan]}), "scores.float64", "expected finite numbers"),
        (packed_scores({"t": [math.inf]}), "scores.float64", "expected finite numbers"),
    ],
)
def test_what_is_no_packed_score_is_told_by_its_place(value: Any, place: str, rule: str) -> None:
    _, problems = read(value)
    assert [path for path, _ in problems] == [place]
    assert rule in problems[0][1]


def test_a_text_that_would_grow_beyond_its_bound_is_not_unpacked() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(10**8))).decode()
    with pytest.raises(ValueError, match="expected at most 100 bytes, got more"):
        inflated(bomb, 100)


IDS = {"search": {"a": ["00ff", "00ff#2", "é\n"], "b": []}, "report": {"a": ["x"]}}


def test_ids_come_back_in_order_whatever_is_in_them() -> None:
    found = unpacked_ids(packed_ids(IDS))
    assert found == {p: {t: tuple(x) for t, x in ids.items()} for p, ids in IDS.items()}


@pytest.mark.parametrize(
    "value",
    [
        *(None, 1, "x", [], {}, {"json": 3}, {"json": "x"}),
        *({"json": packed.deflated(x)} for x in (b"", b"[", b"[]", b'{"search": {"a": [1]}}')),
        {"json": packed.deflated(b"[" * 10**5)},
    ],
)
def test_what_holds_no_ids_is_refused_by_a_rule(value: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        unpacked_ids(value)

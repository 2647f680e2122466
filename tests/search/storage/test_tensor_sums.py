"""Sums of the parents' tensors are stored exactly, small, and read without trusting who did."""

from __future__ import annotations

from typing import Any

import pytest

from merge_core.errors import Problems
from search.storage.packed import deflated
from search.storage.tensor_sums import packed_sums, unpacked_sums


def test_sums_are_stored_exactly_and_an_older_study_has_none() -> None:
    sums = {"org/a": {"x.weight": 2**64 - 1, "y": 0}, "org/b": {}}
    problems: Problems = []
    assert unpacked_sums(packed_sums(sums), problems) == sums
    assert unpacked_sums(None, problems) == {}
    assert not problems


@pytest.mark.parametrize(
    ("stored", "rule"),
    [
        (7, "expected a text"),
        ("no base64!", "expected zlib data in base64"),
        (deflated(b"{"), "Expecting property name"),
        (deflated(b"[" * 10**5), "recursion"),
        (deflated(b'{"a": {"x": "many"}}'), "expected a mapping"),
        (deflated(b" " * (2**26 + 1)), "expected at most 67108864 bytes"),
    ],
)
def test_damaged_sums_are_named(stored: Any, rule: str) -> None:
    problems: Problems = []
    assert unpacked_sums(stored, problems) == {}
    ((path, said),) = problems
    assert path.startswith("tensors")
    assert rule in said

"""What is written as JSON is JSON; what others wrote is read within bounds."""

from __future__ import annotations

import json
import math
import os
import tracemalloc
from pathlib import Path

import pytest

from merge_core.errors import CheckpointError, EvaluationError
from merge_core.json_text import json_text, read_json, read_text


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_numbers_that_json_does_not_know_are_null(number: float) -> None:
    text = json_text({"a": [1.5, {"b": number}], "c": (number, "Infinity")})
    assert json.loads(text) == {"a": [1.5, {"b": None}], "c": [None, "Infinity"]}


DAMAGED = {
    "nested too deep for Python": ("[" * 10**5, "nested too deep"),
    "nested too deep for what comes after": (
        '{"a":' + "[" * 70 + "]" * 70 + "}",
        r"nested too deep \(64 at most\)",
    ),
    "too many values": ("[" + "[]," * (3 * 10**6) + "1]", "expected at most 5000000 values"),
    "a list": ("[1]", "expected a JSON object, got a list"),
    "a text": ('"x"', "expected a JSON object, got 'x'"),
    "nothing": ("", "Expecting value"),
    "not a number": ('{"a": NaN}', "NaN is no number"),
    "a number beyond float64": ('{"a": -1e999}', "a number beyond float64: -1e999"),
    "a long whole number": ('{"a": 1' + "0" * 400 + "}", "at most 40 digits"),
    "a key twice": ('{"a": 1, "b": {"c": 1, "c": 1}}', "the key 'c' stands there twice"),
    "half a pair": ('{"a": "\\ud800"}', "half a surrogate pair"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_json_of_others_that_is_none_or_beyond_bounds_is_one_clear_error(
    tmp_path: Path, case: str
) -> None:
    text, rule = DAMAGED[case]
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(CheckpointError, match=rf"f\.json: .*{rule}") as caught:
        read_json(tmp_path / "f.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_file_is_read_only_where_it_is_one_of_bounded_size_in_utf_8(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "latin").write_bytes(b'{"a": "\xe9"}')
    (tmp_path / "whole").write_text("{}")
    for name, rule in [
        ("pipe", "not a regular file"),
        ("zeros", "not a regular file"),
        (".", "(not a regular file|Is a directory)"),
        ("latin", "not UTF-8, byte 7 is 0xe9"),
        ("gone", "No such file"),
        ("a\0b", "embedded null byte"),
    ]:
        with pytest.raises(EvaluationError, match=f"cannot be read: {rule}"):
            read_text(tmp_path / name, EvaluationError)
    with pytest.raises(CheckpointError, match="at most 1 bytes"):
        read_text(tmp_path / "whole", most=1)


def test_a_small_file_takes_little_memory_however_much_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "small").write_text("{}")
    tracemalloc.start()
    read_text(tmp_path / "small")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**22


def test_what_models_on_the_hub_have_is_read(tmp_path: Path) -> None:
    """Infinity as transformers 4 wrote it, the greatest length of a tokenizer, emoji as pairs."""
    text = '{"a": [0.0, Infinity], "n": 1000000000000000019884624838656, "e": "\\ud83d\\ude00"}'
    (tmp_path / "f.json").write_text(text)
    assert read_json(tmp_path / "f.json") == {"a": [0.0, math.inf], "n": int(1e30), "e": "😀"}

from __future__ import annotations

import os

import pytest

from evaluators.json_rows import read_rows
from merge_core.errors import EvaluationError


def rows_of(tmp_path, content):
    file = tmp_path / "quiz.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_rows(file)


def test_rows_know_their_lines_and_empty_lines_count(tmp_path):
    rows = rows_of(tmp_path, '{"q": 1}\n\n  \n{"q": 2}')
    assert [(row.place, row.values) for row in rows] == [
        ("quiz.jsonl:1", {"q": 1}),
        ("quiz.jsonl:4", {"q": 2}),
    ]


def test_files_of_windows_are_read(tmp_path):
    assert rows_of(tmp_path, b'\xef\xbb\xbf{"q": "a"}\r\n{"q": "b"}\r\n')[1].text("q") == "b"


def test_a_line_separator_within_a_text_ends_no_line(tmp_path):
    assert rows_of(tmp_path, '{"q": "a\u2028b"}')[0].text("q") == "a\u2028b"


@pytest.mark.parametrize(("value", "text"), [('"x"', "x"), ("3", "3"), ("0.5", "0.5")])
def test_numbers_are_texts_too(value, text, tmp_path):
    assert rows_of(tmp_path, f'{{"q": {value}}}')[0].text("q") == text


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("", "quiz.jsonl has no rows; expected one JSON object per line"),
        ("\n \n", "has no rows"),
        ('{"q": 1}\n{"q": }', "quiz.jsonl:2: cannot be read: Expecting value"),
        ("[1, 2]", r"quiz.jsonl:1: expected a JSON object, got \[1, 2\]"),
        ('{"q": 1, "q": 2}', "quiz.jsonl:1: cannot be read: the key 'q' stands there twice"),
        ('{"x": {"q": 1, "q": 2}}', "quiz.jsonl:1: cannot be read: the key 'q' stands there twice"),
        (b'{"q": "\xff"}', r"quiz.jsonl:1: is not UTF-8: byte 7 of the file is 0xff"),
        (b'{"q": 1}\n\n{"q": "\xff"}', r"quiz.jsonl:3: is not UTF-8: byte 17 of the file is 0xff"),
        ('{"q": 1}\n' + "[" * 100_000, "quiz.jsonl:2: cannot be read: nested too deep"),
        ('{"q": ' + '{"q": ' * 100_000, "quiz.jsonl:1: cannot be read: nested too deep"),
        ('{"q": ' + "9" * 5000 + "}", "quiz.jsonl:1: .* whole numbers of at most 4000 digits"),
        ('{"q": 1e999}', "quiz.jsonl:1: cannot be read: a number beyond float64"),
        ('{"q": NaN}', "quiz.jsonl:1: cannot be read: NaN"),
        ('{"q": "a\x00b"}', "quiz.jsonl:1: cannot be read: Invalid control character"),
        (r'{"q": "\ud800"}', "quiz.jsonl:1: cannot be read: half a surrogate pair"),
        ("{}\n" * (5 * 10**6 + 1), "quiz.jsonl cannot be read: expected at most 5000000 values"),
    ],
)
def test_what_is_no_row_is_refused(content, rule, tmp_path):
    with pytest.raises(EvaluationError, match=rule):
        rows_of(tmp_path, content)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"gone.jsonl: cannot be read: No such file"):
        read_rows(tmp_path / "gone.jsonl")


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "quiz.jsonl")
    with pytest.raises(EvaluationError, match=r"quiz.jsonl: cannot be read: not a regular file"):
        read_rows(tmp_path / "quiz.jsonl")


def test_a_row_without_keys_says_so(tmp_path):
    with pytest.raises(EvaluationError, match="no key 'q'; the row has no keys"):
        rows_of(tmp_path, "{}")[0].text("q")

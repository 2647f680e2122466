from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.jsonl.compare import finder, number_of, token_f1
from merge_core.errors import ItemError

WORDS = st.lists(st.sampled_from(["cat", "dog", "sat", "mat"]), max_size=6)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", "42"),
        (" 42. ", "42"),
        ("-1,234,567.50", "-1234567.5"),
        ("+.5", "0.5"),
        ("1e3", "1000"),
        ("12,345", "12345"),
        ("1,2", None),
        ("1234,567", None),
        ("1/2", None),
        ("$5", None),
        ("", None),
        (".", None),
        ("-", None),
        ("e5", None),
        ("nan", None),
        ("inf", None),
        ("٣", None),
        ("1 000", None),
    ],
)
def test_golden_numbers(text, number):
    assert number_of(text) == (None if number is None else Decimal(number))


@given(st.integers(-(10**15), 10**15))
def test_a_number_with_separators_is_the_number(n):
    assert number_of(f"{n:,}") == number_of(str(n)) == n


@given(WORDS, WORDS)
def test_f1_is_symmetric_within_0_and_1_and_1_only_for_the_same_words(a, b):
    f1 = token_f1(" ".join(a), " ".join(b))
    assert f1 == token_f1(" ".join(b), " ".join(a))
    assert 0 <= f1 <= 1
    assert (f1 == 1) == (sorted(a) == sorted(b))


def test_texts_without_words_are_equal():
    assert token_f1("The.", "") == 1
    assert token_f1("The cat", "a") == 0


def test_what_is_found_is_the_first_group_or_all():
    assert finder("a(b)?", "answer_regex")("xab") == "b"
    assert finder("a(b)?", "answer_regex")("xa") is None
    assert finder("ab?", "answer_regex")("xab") == "ab"
    assert finder("ab?", "answer_regex")("x") is None
    assert finder(None, "answer_regex")("x") == "x"


def test_an_expression_that_does_not_end_is_named():
    with pytest.raises(ItemError, match=r"^answer_regex: the regular expression '\(a\|aa\)\+\$'"):
        finder("(a|aa)+$", "answer_regex")("a" * 60 + "b")

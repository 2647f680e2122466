from __future__ import annotations

import re

import pytest

from evaluators import patterns
from merge_core.errors import ItemError

ENDLESS = r"(a|aa)+$"
TEXT = "a" * 60 + "b"


@pytest.mark.parametrize(
    "work",
    [
        lambda: patterns.compile(ENDLESS).search(TEXT),
        lambda: patterns.findall(ENDLESS, TEXT),
        lambda: patterns.sub(ENDLESS, "x", TEXT),
    ],
    ids=["search", "findall", "sub"],
)
@pytest.mark.slow
def test_a_match_that_does_not_end_is_an_error_of_the_item(work):
    with pytest.raises(ItemError, match=r"'\(a\|aa\)\+\$' fails on 'aaa.*: it takes more than 1 s"):
        work()


@pytest.mark.parametrize(
    "pattern", [r"x{e}|[[a]b]", r"(a)|(b)", r"(?i)answer:\s*\(?([A-D])", r"^\s*"]
)
@pytest.mark.filterwarnings("ignore:Possible")
@pytest.mark.parametrize("text", ["", "xb Answer: (B)\nx{e}", "aab\ud800é"])
def test_what_is_found_is_what_re_finds(pattern, text):
    assert patterns.findall(pattern, text) == re.findall(pattern, text)
    assert patterns.sub(pattern, r"<\g<0>>", text) == re.sub(pattern, r"<\g<0>>", text)
    assert patterns.sub(pattern, "", text, count=1) == re.sub(pattern, "", text, count=1)
    found, theirs = patterns.compile(pattern).search(text), re.search(pattern, text)
    assert found == (theirs and [theirs[0], *theirs.groups()])


def test_flags_are_heeded():
    assert patterns.findall("a", "A") == []
    assert patterns.findall("a", "A", flags=re.IGNORECASE) == ["A"]


@pytest.mark.parametrize(
    "pattern", ["(", r"\p{L}", "a{99999999999}", "(" * 3000 + ")" * 3000, "a" * 10_001]
)
def test_what_is_no_expression_or_a_very_long_one_is_refused(pattern):
    with pytest.raises(re.error):
        patterns.compile(pattern)

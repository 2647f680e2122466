"""Machines that would give other scores are told from those that would not."""

import pytest

from merge_core.errors import MergeError
from search.workers.sameness import check_same


def test_a_machine_that_has_all_the_same_is_taken():
    known = {"torch": "2", "the digest of tasks": "ab"}
    check_same(known, dict(known), "one")
    assert known == {"torch": "2", "the digest of tasks": "ab"}


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (
            {"torch": "3", "x": "1"},
            r"machine one would .*: torch is 3 \(here 2\); give all machines",
        ),
        ({"torch": "2"}, r"x is None \(here 1\)"),
    ],
)
def test_a_machine_that_has_something_else_or_lacks_it_is_refused(there, words):
    with pytest.raises(MergeError, match=words):
        check_same({"torch": "2", "x": "1"}, there, "one")


def test_what_the_coordinator_lacks_is_compared_between_machines():
    known = {"torch": "2"}
    check_same(known, {"torch": "2", "vllm": "1"}, "one")
    with pytest.raises(MergeError, match=r"machine two .* vllm is 2 \(here 1\)"):
        check_same(known, {"torch": "2", "vllm": "2"}, "two")

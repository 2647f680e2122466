from __future__ import annotations

import pytest

from evaluators.target import MOST_ANSWERS, Choice, Target
from merge_core.errors import EvaluationError


@pytest.mark.parametrize("right", [(), (2,), (-1,), (0, 0)])
def test_right_choices_are_places_of_choices(right):
    two = (Choice(("a",)), Choice(("b",)))
    with pytest.raises(EvaluationError, match=r"different places of 2 choices, at least one"):
        Target(two, right)


@pytest.mark.parametrize("size", [0.0, -1.0, float("inf"), float("nan")])
def test_a_choice_has_a_size_above_0(size):
    with pytest.raises(EvaluationError, match="size must be above 0, got"):
        Choice(("a",), size=size)


def test_a_choice_has_a_text():
    with pytest.raises(EvaluationError, match="expected at least one text"):
        Choice(())


def test_of_many_right_answers_the_first_different_ones_count():
    target = Target.written("q", ["a", "b", "a", *(str(i) for i in range(100))])
    assert [choice.texts for choice in target.choices[:3]] == [
        (("q", "a"),),
        (("q", "b"),),
        (("q", "0"),),
    ]
    assert target.right == tuple(range(MOST_ANSWERS))
    assert not target.competing


@pytest.mark.parametrize(
    ("target", "start"),
    [
        (Target.written("q", ["a", "b"]), "q"),
        (Target((Choice((("", "said"),)),)), "said"),
        (Target((Choice(("a whole text", "another")),)), "a whole text"),
        (Target((Choice((("x", "1"),)), Choice((("y", "2"),))), (1,), competing=True), "y"),
    ],
)
def test_what_is_read_first_is_the_context_of_a_right_choice_or_its_text(target, start):
    assert target.start == start

"""What answers show of how they end and begin, in the words of a study file."""

from __future__ import annotations

import pytest

from evaluators.answer import Answer
from search.run.answer_ends import delimiter_for, stop_for


def said(*texts: str, right: str = "57") -> list[Answer]:
    return [Answer("add 38+19=", right, text) for text in texts]


@pytest.mark.parametrize(
    ("texts", "advice"),
    [
        (["57..3", "57.", " 57.x", "99."], '`stop: "."` would end 3 of 4 where the right one ends'),
        (["57\n57", "57\nx"], '`stop: "\\n"` would end 2 of 2 where the right one ends'),
        (["57</s>", "57</s>x"], '`stop: "<"` would end 2 of 2 where the right one ends'),
        (["57", "57"], ""),  # nothing follows
        (["570", "571"], ""),  # part of the answer
        (["57 is it", "57 as I said"], ""),  # a blank would cut answers of several words
        (["99.", "98."], ""),  # none is right
        (["57.", "57;", "57"], ""),  # they differ
        (["57.", "57.", "57", "57", "57"], ""),  # most end by themselves
        (["57.", "57.", "9", "9", "9"], '`stop: "."` would end 2 of 5 where the right one ends'),
        (["57."], ""),  # one shows nothing
        ([], ""),
    ],
)
def test_what_follows_the_right_answer_mostly_would_end_it(texts, advice):
    assert stop_for(said(*texts)) == advice


def test_any_of_several_right_answers_counts():
    answers = [Answer("q", "yes | Yes", "Yes;"), Answer("q", "no | No", "no;")]
    assert stop_for(answers) == '`stop: ";"` would end 2 of 2 where the right one ends'


def test_answers_that_begin_without_the_delimiter_want_another_one():
    advice = delimiter_for([" 57\n"] * 3, said("57.", "57.", "12"))
    assert advice.startswith('2 of 3 right answers begin with "" and not with " ", as the task has')
    assert '`delimiter: ""` (`target_delimiter` of a task of lm-eval)' in advice


@pytest.mark.parametrize(
    ("begins", "texts"),
    [
        ([" 57", " 57"], [" 57.", " 57."]),  # as the task has it
        (["57", "57"], ["57.", "57."]),
        ([" 57", " 57"], ["57.", " 57."]),  # they differ
        ([" 57", " 57", " 57"], ["57", "1", "2"]),  # one is right
        (["", ""], ["57", "57"]),  # nothing is known
        ([], []),
    ],
)
def test_of_the_delimiter_nothing_is_said_else(begins, texts):
    assert delimiter_for(begins, said(*texts)) == ""

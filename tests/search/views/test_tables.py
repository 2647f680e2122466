"""What `mergetune check` prints of a study's first items, and of long lists."""

from __future__ import annotations

import pytest

from search.run.check import Checked
from search.run.first_items import FirstItem
from search.views import tables


def printed(capsys: pytest.CaptureFixture[str], found: Checked) -> list[str]:
    tables.checked(found)
    return capsys.readouterr().out.splitlines()


def test_an_item_is_shown_as_it_is_read_with_what_is_right_and_what_ends_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    item = FirstItem("0a", "1 + 1 =\n", (" 2.", " two."), stop=(".", "\n"), most=7)
    assert printed(capsys, Checked({}, [], {"q": [item]})) == [
        "first items of q:",
        "  0a",
        "    prompt  '1 + 1 =\\n'",
        "    right   ' 2.' or ' two.'",
        "    stop    '.', '\\n', the end token, or 7 tokens",
    ]


def test_choices_are_shown_and_why_nothing_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    choice = FirstItem("0a", "1 + 1 =", (" 2",), (" 3", " 4"))
    judged = FirstItem("0b", None, unknown="a judge scores it", stop=(), most=9)
    assert printed(capsys, Checked({}, [], {"q": [choice, judged]}))[1:] == [
        "  0a",
        "    prompt  '1 + 1 ='",
        "    right   ' 2'",
        "    wrong   ' 3', ' 4'",
        "  0b",
        "    prompt  not said by the task",
        "    right   not known: a judge scores it",
        "    stop    the end token, or 9 tokens",
    ]


def test_of_a_long_text_the_end_is_longest(capsys: pytest.CaptureFixture[str]) -> None:
    item = FirstItem("0a", "x" * 1000 + "end")
    line = printed(capsys, Checked({}, [], {"q": [item]}))[2]
    assert "x … x" in line
    assert line.endswith("xend'")
    assert len(line) < 830


def test_of_many_names_the_first_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    few, many = ([f"d{i}" for i in range(count)] for count in (20, 21))
    lines = printed(capsys, Checked({"few": few, "many": many}, []))
    assert lines[0] == f"few: {', '.join(few)}"
    assert lines[1] == f"many: {', '.join(many[:10])}, and 11 more (all: --json)"

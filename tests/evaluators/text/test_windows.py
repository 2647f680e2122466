from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evaluators.text.windows import pieces, spans_of
from merge_core.errors import EvaluationError, ParameterError

TEXTS = st.text("ab c\n", min_size=1, max_size=60)


def characters(text):
    """One token per character."""
    return [(i, i + 1) for i in range(len(text))]


def test_golden_pieces_side_by_side():
    # windows of 4 predicted tokens, each later one after 1 token of context, as in lm-eval
    assert pieces("abcdefghij", characters("abcdefghij"), 4, 4) == [
        ("", "abcd"),
        ("d", "efgh"),
        ("fgh", "ij"),
    ]


def test_golden_pieces_with_context():
    assert pieces("abcdefgh", characters("abcdefgh"), 4, 2) == [
        ("", "abcd"),
        ("bcd", "ef"),
        ("def", "gh"),
    ]


def test_a_cut_is_made_before_a_blank_where_there_is_one():
    text = "ab cd ef"
    assert pieces(text, characters(text), 4, 4) == [("", "ab"), ("ab", " cd"), ("cd", " ef")]


def test_a_short_text_is_one_piece_without_context():
    assert pieces("abcd", characters("abcd"), 4, 1) == [("", "abcd")]


def test_characters_of_several_tokens_are_not_cut():
    spans = [(0, 1), (1, 2), (1, 2), (2, 3)]  # the second character takes two tokens
    assert pieces("aéb", spans, 2, 2) == [("", "a"), ("a", "é"), ("é", "b")]


@given(TEXTS, st.integers(2, 12), st.data())
def test_pieces_are_the_text_once_each_after_the_text_before_it(text, window, data):
    stride = data.draw(st.integers(1, window))
    try:
        cut = pieces(text, characters(text), window, stride)
    except EvaluationError:
        assume(False)
    place = 0
    for context, piece in cut:
        assert piece
        assert text[:place].endswith(context)
        assert text[place:].startswith(piece)
        assert len(context + piece) == min(place + len(piece), window + 1) or place == 0
        assert not context[-1:].isspace()
        assert len(piece) <= (stride if place else window)
        place += len(piece)
    assert place == len(text)


def test_a_long_run_of_blanks_is_refused():
    with pytest.raises(EvaluationError, match="no place to cut after '    b'; a larger stride"):
        pieces("a    b", characters("a    b"), 2, 2)


def test_a_tokenizer_that_does_not_say_where_tokens_stand_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ParameterError, match="window and stride need a fast tokenizer"):
        spans_of(Slow(), "x")


def test_spans_leave_special_tokens_out(tokenizer):
    assert spans_of(tokenizer, "ab c") == characters("ab c")

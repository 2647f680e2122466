from __future__ import annotations

import numpy as np

from evaluators.engines.encoding import TokenIds


def test_nothing_is_remembered_beyond_the_limit(tokenizer):
    ids = TokenIds(tokenizer, 512, kept_tokens=10)
    for text in ("abcdef", "ghijkl", "abcdef", "mno"):
        assert ids.prompt(text, 1).tolist() == tokenizer.encode(text)
    assert [text for text, _ in ids._texts] == ["abcdef", "mno"]


def test_a_space_before_the_continuation_is_scored_with_it(tokenizer):
    ask = TokenIds(tokenizer, 512).pair("ab ", "c")
    assert tokenizer.decode(ask.context) == "ab"
    assert tokenizer.decode(ask.continuation) == " c"


def test_windows_predict_every_token_once(tokenizer):
    text = "abcdefghij0123456789k"
    windows = TokenIds(tokenizer, 8).windows(text)
    said = np.concatenate([window.continuation for window in windows])
    assert said.tolist() == tokenizer.encode(text)
    assert all(len(w.context) + len(w.continuation) <= 9 for w in windows)

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluators.engines.hf.batching import Budget, TokenIds, padded, widened


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


@pytest.mark.parametrize("length", [2, 64, 65, 100, 129, 500, 2048])
def test_a_padded_context_has_padding_of_half_at_most(length):
    assert length - 1 < padded(length) <= max(64, length * 3 // 2)


def test_a_lone_token_is_not_padded():
    assert padded(1) == 0


def test_a_continuation_is_widened_by_a_half_at_most():
    assert all(n <= widened(n) <= n * 3 / 2 for n in range(1, 600))


def test_a_batch_that_does_not_fit_is_halved_and_the_size_remembered():
    budget = Budget(torch.device("cpu"), most_rows=None)
    sizes = []

    def step(rows):
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("no room")
        return list(rows)

    found = [list(budget.batches(range(12), 100, step)) for _ in range(2)]
    assert [[row for part in parts for row in part] for parts in found] == [list(range(12))] * 2
    assert sizes == [12, 6, 3, 3, 3, 3, 3, 3, 3, 3]


def test_one_row_that_does_not_fit_passes_the_error_on():
    def step(rows):
        raise torch.OutOfMemoryError("no room")

    budget = Budget(torch.device("cpu"), most_rows=2)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        list(budget.batches(range(3), 100, step))

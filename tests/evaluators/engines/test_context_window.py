from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from evaluators.engines.context_window import count_tokens, too_long, window_of
from evaluators.protocol import LiveModel


def model(engine="{}", **config):
    told = SimpleNamespace(fingerprint=lambda: engine)
    return LiveModel(SimpleNamespace(config=SimpleNamespace(**config)), None, 1, told)


@pytest.mark.parametrize(
    ("given", "window"),
    [
        (model(max_position_embeddings=64), 64),
        (model(n_positions=32), 32),
        (model(json.dumps({"max_length": 16}), max_position_embeddings=64), 16),
        (model(json.dumps({"max_length": 2048})), 2048),
        (model("no JSON", n_ctx=8), 8),
        (model("[]"), None),
    ],
)
def test_window_is_the_least_that_is_told(given, window):
    assert window_of(given) == window


def test_window_of_a_real_model_is_that_of_its_engine(live):
    assert window_of(live) == json.loads(live.engine.fingerprint())["max_length"] == 512


@pytest.mark.parametrize(
    ("tokens", "answer", "window", "fits"),
    [(10, 6, 16, True), (11, 6, 16, False), (17, 0, 16, False), (99, 99, None, True)],
)
def test_prompt_and_answer_must_fit_together(tokens, answer, window, fits):
    assert (too_long(tokens, answer, window) == "") == fits


def test_tokens_are_counted_without_a_word(tokenizer, capfd):
    assert count_tokens(tokenizer, ["abc", "", "x" * 5000]) == [3, 0, 5000]
    assert capfd.readouterr() == ("", "")


def test_nothing_has_no_tokens(tokenizer):
    assert count_tokens(tokenizer, []) == []

from __future__ import annotations

import pytest

from evaluators.engines.token_engine import TokenEngine
from evaluators.target import Target
from merge_core.errors import ParameterError


class Other(TokenEngine):
    """An engine that scores, and no more."""

    def _scored(self, asks, *, rolling=False):
        return [(0.0, True) for _ in asks]

    def _facts(self):
        return {}


@pytest.mark.parametrize("ask", [lambda e, t: e.losses(t), lambda e, t: e.backward(t, [1.0])])
def test_an_engine_without_gradients_says_which_one_has_them(ask, make_tokenizer):
    engine = Other(make_tokenizer(), 64)
    with pytest.raises(
        ParameterError, match=r"gradients need the engine hf, .* `engine: {name: hf}`"
    ):
        ask(engine, [Target.written("a", ["b"])])

"""Classes that predict no next token are refused, not scored as if they did."""

from __future__ import annotations

import pytest
import torch
import transformers

from evaluators.engines.hf.engine import live_model
from merge_core.errors import EvaluationError

SMALL = {"vocab_size": 48, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
SMALL |= {"num_attention_heads": 2}


def made(name, config, **settings):
    torch.manual_seed(0)
    return getattr(transformers, name)(getattr(transformers, config)(**settings)).eval()


@pytest.mark.parametrize(
    ("name", "config", "settings", "what"),
    [
        ("BertForMaskedLM", "BertConfig", SMALL, "writes no text"),
        ("LlamaForSequenceClassification", "LlamaConfig", SMALL, "writes no text"),
        (
            "T5ForConditionalGeneration",
            "T5Config",
            {"vocab_size": 48, "d_model": 32, "d_ff": 64, "num_layers": 1, "num_heads": 2},
            "reads with an encoder",
        ),
    ],
)
def test_a_class_of_another_kind_is_refused_at_once(name, config, settings, what, make_tokenizer):
    model = made(name, config, **settings)
    with pytest.raises(EvaluationError, match=f"^{name} cannot be scored: expected a .* {what}"):
        live_model(model, make_tokenizer(), batch_size=2)


def test_a_model_that_looks_ahead_is_refused(make_tokenizer):
    model = made("BertLMHeadModel", "BertConfig", **SMALL, initializer_range=0.2)
    live = live_model(model, make_tokenizer(), batch_size=2)
    with pytest.raises(EvaluationError, match=r"BertLMHeadModel .* depends on those behind it"):
        live.engine.loglikelihood([("say a:", "bc")])

"""Models that place or see tokens otherwise in long sequences: as one plain pass, one by one."""

from __future__ import annotations

import pytest
import torch
import transformers

from evaluators.engines.hf.engine import live_model
from evaluators.target import Choice, Target
from tests.evaluators.engines.hf.test_learning import apart, gradients, plain_loss

SHAPE = {
    "vocab_size": 48,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": None,
}
FACTORS = {"short_factor": [1.0] * 16, "long_factor": [1.0 + i for i in range(16)]}
LONGROPE = {"rope_type": "longrope", "original_max_position_embeddings": 64, **FACTORS}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 64}
MODELS = {
    "Llama, longrope": ("Llama", {"rope_scaling": LONGROPE}),
    "Phi-3, longrope": ("Phi3", {"rope_scaling": LONGROPE, "original_max_position_embeddings": 64}),
    "Llama, dynamic": ("Llama", {"rope_scaling": DYNAMIC}),
    "Mistral, window": ("Mistral", {"sliding_window": 24}),
    "Gemma 3, window": (
        "Gemma3Text",
        {"sliding_window": 24, "head_dim": 32, "num_hidden_layers": 7},
    ),
    "Qwen 2, window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    ),
}
TEXT = "abc def 0123 say what is it " * 20
# of tokens: below the limits, at them, across them, beyond; with shared starts
LENGTHS = (5, 20, 60, 63, 64, 65, 66, 100, 200, 400)


@pytest.fixture(scope="module", params=MODELS)
def long(request, make_tokenizer):
    name, more = MODELS[request.param]
    config = getattr(transformers, f"{name}Config")(**{**SHAPE, **more})
    kind = {"Gemma3Text": "Gemma3ForCausalLM"}.get(name, f"{name}ForCausalLM")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = getattr(transformers, kind)(config)
    return live_model(model.eval(), make_tokenizer(), batch_size=8)


def plainly(long, ids):
    """The log-probabilities after each token, by one pass over this sequence alone."""
    with torch.no_grad():
        logits = long.model(torch.tensor([ids]), use_cache=False).logits[0]
    return logits.double().log_softmax(-1)


def test_loglikelihoods_are_those_of_one_plain_pass(long):
    pairs = [(TEXT[:n], end) for n in LENGTHS for end in ("a", "b", "c def", "0123 say")]
    found = long.engine.loglikelihood(pairs)
    for (context, end), (nats, greedy) in zip(pairs, found, strict=True):
        start = long.tokenizer(context.rstrip())["input_ids"]
        ids = long.tokenizer(context + end)["input_ids"]
        logs = plainly(long, ids[:-1])
        told = [float(logs[i - 1, ids[i]]) for i in range(len(start), len(ids))]
        assert nats == pytest.approx(sum(told), abs=4e-5, rel=5e-7)
        best = [int(logs[i - 1].argmax()) == ids[i] for i in range(len(start), len(ids))]
        assert greedy == all(best)


def test_rolling_loglikelihoods_are_those_of_one_plain_pass(long):
    texts = [TEXT[:n] for n in LENGTHS]
    for text, nats in zip(texts, long.engine.loglikelihood_rolling(texts), strict=True):
        ids = [1, *long.tokenizer(text)["input_ids"]]
        logs = plainly(long, ids[:-1])
        expected = sum(float(logs[i - 1, ids[i]]) for i in range(1, len(ids)))
        assert nats == pytest.approx(expected, abs=4e-5, rel=5e-7)


@pytest.mark.slow
def test_answers_are_those_of_plain_passes(long):
    prompts = [TEXT[:n] for n in LENGTHS]
    how = {"until": [], "max_gen_toks": 10}
    for prompt, said in zip(
        prompts, long.engine.generate_until([(p, how) for p in prompts]), strict=True
    ):
        ids, new = long.tokenizer(prompt)["input_ids"], []
        while len(new) < 10 and 1 not in new:
            new.append(int(plainly(long, [*ids, *new])[-1].argmax()))
        assert said == long.tokenizer.decode(new, skip_special_tokens=True)


def test_gradients_are_those_of_plain_passes(long):
    ends = (" d.", " efg 01", " b c d e f")  # short and long ones after one context
    targets = [Target.written(TEXT[:n], [" abc."]) for n in LENGTHS]
    targets += [
        Target(tuple(Choice(((TEXT[:n], end),)) for end in ends), (1,), competing=True)
        for n in (20, 56, 60, 100)
    ]
    expected = [plain_loss(long, target) for target in targets]
    sum(expected).backward()
    theirs = gradients(long.model)
    losses = long.engine.backward(targets, [1.0] * len(targets))
    assert losses == pytest.approx([x.item() for x in expected], rel=1e-4, abs=1e-4)
    assert apart(gradients(long.model), theirs) < 1e-4

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from evaluators.hf import live_model
from merge_core.errors import NonFiniteError, ParameterError

PROMPTS = [f"say {'abc' * (i % 5)}{i}:" for i in range(19)]
PAIRS = [(p, c) for p in PROMPTS for c in ("a", "bc", "d e")] + [("", "abc"), ("say ", "x")]


def plain(live, make_tokenizer, batch_size):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=live.model, tokenizer=make_tokenizer(), batch_size=batch_size)


def requests(all_args):
    return [SimpleNamespace(args=args) for args in all_args]


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("until", [["e", "\n"], ["a"], ["bc", "b", "0"], []], ids=str)
def test_generated_answers_are_those_of_plain_hflm(batch_size, until, live, make_tokenizer):
    how = {"until": until, "max_gen_toks": 7, "do_sample": False, "temperature": 0.0}
    asked = [(p, how) for p in PROMPTS]
    engine = live_model(live.model, make_tokenizer(), batch_size=batch_size).engine
    theirs = plain(live, make_tokenizer, batch_size).generate_until(requests(asked), True)
    assert engine.generate_until(asked) == theirs
    assert engine.generate_until(asked) == theirs  # now from remembered token ids


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_loglikelihoods_are_those_of_plain_hflm(batch_size, live, make_tokenizer):
    engine = live_model(live.model, make_tokenizer(), batch_size=batch_size).engine
    theirs = plain(live, make_tokenizer, batch_size).loglikelihood(requests(PAIRS), True)
    assert engine.loglikelihood(PAIRS) == theirs
    assert engine.loglikelihood(PAIRS) == theirs


def test_loglikelihood_is_what_the_definition_gives(live, tokenizer):
    import torch

    prompt, answer = tokenizer("say a:")["input_ids"], tokenizer("bc")["input_ids"]
    with torch.no_grad():
        logits = live.model(torch.tensor([prompt + answer])).logits[0].double()
    logp = logits.log_softmax(-1)
    expected = sum(float(logp[len(prompt) - 1 + i, t]) for i, t in enumerate(answer))
    ((nats, _),) = live.engine.loglikelihood([("say a:", "bc")])
    assert nats == pytest.approx(expected, abs=1e-5)  # float32 sum of two logs of size ~10


def test_settings_given_are_left_as_they_were(live):
    how = {"until": ["e"], "max_gen_toks": 2}
    live.engine.generate_until([("say a:", how)])
    assert how == {"until": ["e"], "max_gen_toks": 2}


def test_tokenizer_given_is_left_as_it_was(live, make_tokenizer):
    tokenizer = make_tokenizer()
    assert live_model(live.model, tokenizer, batch_size=2).tokenizer is tokenizer
    assert tokenizer.pad_token is None


def test_nothing_is_remembered_beyond_the_limit(live, make_tokenizer):
    from evaluators.hflm import LiveHFLM

    lm = LiveHFLM(live.model, make_tokenizer(), batch_size=2, kept_tokens=10)
    assert [lm.tok_encode(text) for text in ("abcdef", "ghijkl", "abcdef", "mno")] == [
        lm.tokenizer.encode(text) for text in ("abcdef", "ghijkl", "abcdef", "mno")
    ]
    assert [key[0] for key in lm._ids] == ["abcdef", "mno"]


def test_remembered_ids_do_not_mix_up_the_ways_to_encode(live, make_tokenizer):
    from evaluators.hflm import LiveHFLM

    lm = LiveHFLM(live.model, make_tokenizer(), batch_size=2)
    assert len(lm.tok_encode("abcdef")) == 6
    assert len(lm.tok_encode("abcdef", left_truncate_len=2)) == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_spoilt_weights_raise_while_generating(value, fresh_live):
    import torch

    with torch.no_grad():
        fresh_live.model.model.norm.weight[0] = value
    with pytest.raises(NonFiniteError, match="logits of the next token are NaN or infinite"):
        fresh_live.engine.generate_until([("say a:", {"until": [], "max_gen_toks": 3})])


def test_spoilt_weights_raise_in_a_loglikelihood(fresh_live):
    import torch

    with torch.no_grad():
        fresh_live.model.model.norm.weight[0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"log-likelihood of 'b' after 'say a:' is nan"):
        fresh_live.engine.loglikelihood([("say a:", "b")])


def test_a_masked_token_is_no_error(fresh_live, make_tokenizer):
    import torch

    # Padded vocabularies have logits of -inf; a finite maximum is all that a choice needs.
    head = fresh_live.model.lm_head
    masked = torch.nn.Parameter(torch.full((48,), 0.0))
    with torch.no_grad():
        masked[47] = -torch.inf
    head.register_parameter("bias", masked)
    assert len(fresh_live.engine.generate_until([("say a:", {"max_gen_toks": 3})])) == 1


def test_batch_size_below_one_is_refused(live, tokenizer):
    with pytest.raises(ParameterError, match="batch_size must be at least 1, got 0"):
        live_model(live.model, tokenizer, batch_size=0)


def test_fingerprint_names_dtype_device_and_batch(live):
    facts = json.loads(live.engine.fingerprint())
    assert facts["dtype"] == "float32"
    assert (facts["engine"], facts["device"], facts["batch_size"]) == ("hf", "cpu", 8)


def test_fingerprint_does_not_depend_on_what_a_tokenizer_was_used_for(live, make_tokenizer):
    used = make_tokenizer()
    used("abcdef", truncation=True, max_length=2)  # the tokenizer remembers this as a setting
    engine = live_model(live.model, used, batch_size=8).engine
    assert engine.fingerprint() == live.engine.fingerprint()


def test_fingerprint_changes_with_the_tokenizer(live, make_tokenizer):
    other = make_tokenizer()
    other.add_tokens(["ab"])
    engine = live_model(live.model, other, batch_size=8).engine
    assert engine.fingerprint() != live.engine.fingerprint()


def test_fingerprint_changes_with_the_models_generation_settings(fresh_live):
    before = fresh_live.engine.fingerprint()
    fresh_live.model.generation_config.repetition_penalty = 1.3  # greedy answers obey it too
    assert fresh_live.engine.fingerprint() != before


def test_nothing_is_printed(live, make_tokenizer, capfd):
    engine = live_model(live.model, make_tokenizer(), batch_size=2).engine
    engine.generate_until([("say a:", {"until": ["e"], "max_gen_toks": 2, "temperature": 0.0})])
    engine.loglikelihood([("b" * 600, "c")])  # longer than the model: lm-eval would warn
    assert capfd.readouterr() == ("", "")


def test_order_of_the_pairs_changes_no_bit(live):
    backwards = live.engine.loglikelihood(PAIRS[::-1])
    assert backwards[::-1] == live.engine.loglikelihood(PAIRS)


def test_other_neighbours_move_a_loglikelihood_only_by_rounding(live):
    together = [nats for nats, _ in live.engine.loglikelihood(PAIRS)]
    alone = [live.engine.loglikelihood([pair])[0][0] for pair in PAIRS]
    # Values of -10 to -30 in float32, where one step is 2e-6: a few dozen steps.
    assert alone == pytest.approx(together, abs=1e-4)

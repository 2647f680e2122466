from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from evaluators.engines.hf.engine import live_model
from merge_core.errors import EvaluationError, NonFiniteError, ParameterError

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


def close(nats):
    """Allow rounding, which these wide random weights enlarge.

    HFLM's own answers move by up to 2e-5 when it pads otherwise, ours by as much from HFLM's.
    """
    return pytest.approx(nats, rel=5e-7, abs=4e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_loglikelihoods_are_those_of_plain_hflm(batch_size, live, make_tokenizer):
    engine = live_model(live.model, make_tokenizer(), batch_size=batch_size).engine
    theirs = plain(live, make_tokenizer, batch_size).loglikelihood(requests(PAIRS), True)
    ours = engine.loglikelihood(PAIRS)
    assert [nats for nats, _ in ours] == close([nats for nats, _ in theirs])
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    assert engine.loglikelihood(PAIRS) == ours  # now from remembered token ids


SHAPE = {"vocab_size": 48, "bos_token_id": None, "eos_token_id": 1, "initializer_range": 0.3}
WIDE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS = {
    "Llama": {"num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 128},
    "GPT2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "GPTNeoX": {"intermediate_size": 96, "max_position_embeddings": 128},
    "Gemma2": {
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 96,
        "sliding_window": 24,
        "max_position_embeddings": 128,
    },
    "Mamba": {},  # no attention: answered by HFLM itself
}


@pytest.fixture(scope="module", params=MODELS)
def small(request, make_tokenizer):
    """Two layers with 128 places, so that long prompts are cut."""
    import transformers

    name = request.param
    config = getattr(transformers, f"{name}Config")
    wide = {} if name == "GPT2" else WIDE
    if name == "Mamba":
        wide = {"hidden_size": 64, "num_hidden_layers": 2}
    kind = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, kind)(config(**SHAPE, **wide, **MODELS[name]))
    return live_model(model.eval(), make_tokenizer(), batch_size=8)


SHOTS = "say a: b\n\nsay bc: de\n\nsay d: 0123\n\n"
LONG = "abc def 0123 " * 12  # longer than 128 tokens


def fewshot(prompts):
    return [*prompts, *(SHOTS + p for p in prompts), *(SHOTS[: 9 * i] + prompts[i] for i in (1, 3))]


def test_loglikelihoods_of_any_model_are_those_of_plain_hflm(small, make_tokenizer):
    asked = [(p, c) for p in fewshot(PROMPTS[:6]) for c in ("a", "bc", "d e 01", "a")]
    asked += [("", "abc"), ("say ", "x"), (LONG, "abc"), ("a", "b" * 128), ("ab", LONG[:128])]
    ours = small.engine.loglikelihood(asked)
    theirs = plain(small, make_tokenizer, 8).loglikelihood(requests(asked), True)
    assert [nats for nats, _ in ours] == close([nats for nats, _ in theirs])
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


def test_rolling_loglikelihoods_of_any_model_are_those_of_plain_hflm(small, make_tokenizer, capfd):
    texts = ["a", "abc def", LONG, LONG[:128], LONG[:129], LONG + LONG]
    theirs = plain(small, make_tokenizer, 8).loglikelihood_rolling(requests((t,) for t in texts))
    capfd.readouterr()
    assert small.engine.loglikelihood_rolling(texts) == close(theirs)
    assert capfd.readouterr() == ("", "")


def test_answers_of_any_model_are_those_of_plain_hflm(small, make_tokenizer):
    how = {"until": ["e", "01"], "max_gen_toks": 20}
    asked = [(p, how) for p in [*fewshot(PROMPTS[:6]), LONG]]
    theirs = plain(small, make_tokenizer, 8).generate_until(requests(asked), True)
    assert small.engine.generate_until(asked) == theirs


def test_a_text_without_tokens_has_no_nats(live):
    assert live.engine.loglikelihood_rolling(["", "a"])[0] == 0.0


def test_more_than_greedy_choice_is_left_to_hflm(fresh_live, make_tokenizer):
    fresh_live.model.generation_config.repetition_penalty = 1.3
    asked = [(p, {"until": ["e"], "max_gen_toks": 9}) for p in PROMPTS[:4]]
    theirs = plain(fresh_live, make_tokenizer, 8).generate_until(requests(asked), True)
    assert fresh_live.engine.generate_until(asked) == theirs


def test_weights_changed_in_place_change_the_next_answer(fresh_live):
    before = fresh_live.engine.loglikelihood(PAIRS[:3])
    with torch.no_grad():
        fresh_live.model.model.layers[0].mlp.down_proj.weight.mul_(-3)
    assert fresh_live.engine.loglikelihood(PAIRS[:3]) != before


@pytest.mark.parametrize("continuation", ["", "b" * 513])
def test_a_continuation_that_cannot_be_scored_is_refused(continuation, live):
    with pytest.raises(EvaluationError, match="it must have 1 to 512, after at least 1"):
        live.engine.loglikelihood([("a", continuation)])


def test_more_new_tokens_than_the_model_takes_are_refused(live):
    with pytest.raises(EvaluationError, match="600 tokens are to be generated, but the model tak"):
        live.engine.generate_until([("a", {"max_gen_toks": 600})])


def test_loglikelihood_is_what_the_definition_gives(live, tokenizer):
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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_spoilt_weights_raise_while_generating(value, fresh_live):
    with torch.no_grad():
        fresh_live.model.model.norm.weight[0] = value
    with pytest.raises(NonFiniteError, match="logits of the next token are NaN or infinite"):
        fresh_live.engine.generate_until([("say a:", {"until": [], "max_gen_toks": 3})])


def test_spoilt_weights_raise_in_a_loglikelihood(fresh_live):
    with torch.no_grad():
        fresh_live.model.model.norm.weight[0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"log-likelihood of 'b' after 'say a:' is nan"):
        fresh_live.engine.loglikelihood([("say a:", "b")])


def test_spoilt_weights_leave_nothing_behind(fresh_live):
    pairs = [(SHOTS * 3 + p, c) for p, c in PAIRS[:9]]
    before = fresh_live.engine.loglikelihood(pairs)
    with torch.no_grad():
        keys = fresh_live.model.model.layers[1].self_attn.k_proj.weight
        kept = keys.clone()
        keys[:] = float("nan")
        with pytest.raises(NonFiniteError, match="is nan"):
            fresh_live.engine.loglikelihood(pairs)
        keys[:] = kept
    assert fresh_live.engine.loglikelihood(pairs[:5]) == before[:5]


def test_a_masked_token_is_no_error(fresh_live, make_tokenizer):
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


@pytest.mark.slow
def test_fingerprint_is_the_same_in_every_process(model_folder):
    code = (
        "import sys, torch\n"
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
        "from evaluators.engines.hf.engine import live_model; torch.set_num_threads(1)\n"
        "where = sys.argv[1]; model = M.from_pretrained(where, trust_remote_code=False)\n"
        "tokenizer = T.from_pretrained(where, trust_remote_code=False)\n"
        "print(live_model(model, tokenizer, batch_size=8).engine.fingerprint())"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code, str(model_folder)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
    wanted = {"torch", "transformers", "tokenizers", "device", "processor", "dtype", "threads"}
    assert wanted | {"attention", "experts", "products", "cuda"} <= json.loads(told[0]).keys()


@pytest.mark.parametrize(
    "change",
    [
        lambda live: torch.set_float32_matmul_precision("medium"),
        lambda live: torch.set_num_threads(2),
        lambda live: live.model.set_attn_implementation("eager"),
        lambda live: live.model.half(),
    ],
    ids=["products", "threads", "attention", "dtype"],
)
def test_fingerprint_changes_with_what_moves_the_bits(change, fresh_live):
    before = fresh_live.engine.fingerprint()
    try:
        change(fresh_live)
        assert fresh_live.engine.fingerprint() != before
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.set_num_threads(1)


def test_fingerprint_changes_with_how_answers_are_cleaned(live, make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.clean_up_tokenization_spaces = True
    other = live_model(live.model, tokenizer, batch_size=8)
    assert other.engine.fingerprint() != live.engine.fingerprint()


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


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 17, 99])
def test_order_and_blocks_change_no_bit(size, live):
    import random

    order = random.Random(size).sample(range(len(PAIRS)), len(PAIRS))
    blocks = [order[i : i + size] for i in range(0, len(order), size)]
    found = [a for block in blocks for a in live.engine.loglikelihood([PAIRS[i] for i in block])]
    assert found == [live.engine.loglikelihood(PAIRS)[i] for i in order]


def drawn_prompts(n):
    """Texts of 1 to 300 tokens that part from each other anywhere, as few-shot prompts do."""
    import random

    draw, texts = random.Random(3), [(SHOTS * 9)[:300]]
    for _ in range(n):
        kept = draw.choice(texts)[: draw.randrange(280)]
        more = "".join(draw.choice("abcdef 0123") for _ in range(draw.randint(1, 150)))
        texts.append((kept + more)[:300] + "x")
    # One past, and four futures that are read in passes of their own.
    return texts + [texts[0][:195] + c * n for c, n in zip("abcd", (5, 20, 40, 58), strict=True)]


@pytest.mark.slow
def test_long_prompts_that_part_anywhere_change_no_bit(live, make_tokenizer):
    prompts = drawn_prompts(20)
    pairs = [(p, c) for p in prompts for c in ("a", "bc", "de", "d e", "0 12b", "01")[: len(p) % 7]]
    engine = live.engine
    together = engine.loglikelihood(pairs)
    assert [engine.loglikelihood([pair])[0] for pair in pairs] == together
    theirs = plain(live, make_tokenizer, 8).loglikelihood(requests(pairs), True)
    assert [nats for nats, _ in together] == close([nats for nats, _ in theirs])
    asked = [(p, {"until": ["e"], "max_gen_toks": 9}) for p in prompts]
    assert [engine.generate_until([x])[0] for x in asked] == engine.generate_until(asked)


def test_of_equal_logits_the_first_token_is_the_greedy_one(fresh_live, make_tokenizer):
    with torch.no_grad():
        fresh_live.model.lm_head.weight[2::2] = fresh_live.model.lm_head.weight[3::2]
    asked = [(p, c) for p in PROMPTS[:3] for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
    engine, theirs = fresh_live.engine, plain(fresh_live, make_tokenizer, 8)
    for _ in range(2):  # the first token, and one that follows it
        ours = [greedy for _, greedy in engine.loglikelihood(asked)]
        assert ours == [greedy for _, greedy in theirs.loglikelihood(requests(asked), True)]
        likely = [pair for pair, greedy in zip(asked, ours, strict=True) if greedy]
        assert likely
        asked = [(p, b + c) for p, b in likely for c in "abcdefghijklmnopqrstuvwxyz0123456789"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_most_likely_token_is_the_first_of_the_highest(dtype):
    from evaluators.engines.hf.prefix_forward import most_likely

    logits = torch.randint(4, (50, 3, 77), generator=torch.Generator().manual_seed(0)).float()
    logits[7, 1, 5:9] = float("nan")
    expected = [
        [next((i for i, x in enumerate(row) if x != x), row.index(max(row))) for row in rows]
        for rows in logits.tolist()
    ]
    assert most_likely(logits.to(getattr(torch, dtype))).tolist() == expected


def test_neighbours_that_share_a_prefix_change_no_bit(live):
    prompts = fewshot(PROMPTS)
    how = {"until": ["e"], "max_gen_toks": 9}
    texts = [SHOTS * 4 + p for p in PROMPTS[:5]]
    engine = live.engine
    pairs = [(p, "d e") for p in prompts]
    assert [engine.loglikelihood([x])[0] for x in pairs] == engine.loglikelihood(pairs)
    assert [engine.loglikelihood_rolling([x])[0] for x in texts] == engine.loglikelihood_rolling(
        texts
    )
    asked = [(p, how) for p in prompts]
    assert [engine.generate_until([x])[0] for x in asked] == engine.generate_until(asked)

"""vLLM against a fresh vLLM, plain lm-eval and the engine ``hf``; run by ``make test-vllm``."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evaluators.engines.hf.engine import live_model
from evaluators.protocol import LiveModel
from merge_core.errors import EvaluationError, NonFiniteError, ParameterError
from tests.evaluators.conftest import character_tokenizer, make_model
from tests.evaluators.following import start, start_on
from tests.evaluators.harness.test_task import CASES

pytestmark = pytest.mark.vllm

PROMPTS = [f"say {'abc' * (i % 5)}{i}:" for i in range(11)]
PAIRS = [(p, c) for p in PROMPTS for c in ("a", "bc", "d e 01")] + [("", "abc"), ("say ", "x")]
GREEDY = {"until": ["e", "01"], "max_gen_toks": 12}
ASKED = [(p, GREEDY) for p in PROMPTS]
SAMPLED = {"until": ["\n"], "max_gen_toks": 8, "do_sample": True, "temperature": 1.0}
LONG = "abc def 0123 " * 12  # longer than 128 tokens

SHAPE = {"vocab_size": 48, "bos_token_id": None, "eos_token_id": 1, "initializer_range": 0.3}
WIDE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = {"num_key_value_heads": 1, "intermediate_size": 96, "max_position_embeddings": 128}
MODELS = {
    "Llama": {**WIDE, **LLAMA},
    "Llama, tied": {**WIDE, **LLAMA, "tie_word_embeddings": True},
    "Qwen2": {**WIDE, **LLAMA},
    "GPT2": {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 128},
    "Gemma2": {**WIDE, **LLAMA, "head_dim": 32, "sliding_window": 24},
}


def close(nats):
    """Allow rounding, which these wide random weights enlarge: see the engine's docstring."""
    return pytest.approx(nats, rel=5e-6, abs=2e-4)


def random_model(kind, seed):
    import transformers

    name = kind.partition(",")[0]
    config = getattr(transformers, f"{name}Config")(**SHAPE, **MODELS[kind])
    head = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return getattr(transformers, head)(config).eval()


def stored(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module", params=MODELS)
def swapped(request, make_tokenizer, tmp_path_factory):
    """Two models of one class as folders, and an engine that had the one, then the other."""
    folders = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp(f"{seed}")
        random_model(request.param, seed).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        folders.append(folder)
    model = random_model(request.param, 1)
    engine = start(model, make_tokenizer(), tmp_path_factory.mktemp("shell"), batch_size=8)
    engine.take(iter(stored(folders[0]).items()))
    engine.loglikelihood(PAIRS), engine.generate_until(ASKED)  # fills the prefix cache
    engine.take(iter(stored(folders[1]).items()))
    return SimpleNamespace(engine=engine, folder=folders[1], model=model)


def test_after_a_swap_answers_are_those_of_a_fresh_engine_on_the_folder(swapped, make_tokenizer):
    tokenizer, engine = make_tokenizer(), swapped.engine
    fresh = start_on(swapped.folder, swapped.model, tokenizer, weights=True, batch_size=8)
    assert engine.generate_until(ASKED) == fresh.generate_until(ASKED)
    assert engine.loglikelihood(PAIRS) == fresh.loglikelihood(PAIRS)
    assert engine.loglikelihood_rolling(PROMPTS) == fresh.loglikelihood_rolling(PROMPTS)
    assert engine.fingerprint() == fresh.fingerprint()


def plain(swapped):
    from lm_eval.models.huggingface import HFLM

    how = {"dtype": "float32", "device": "cpu", "batch_size": 1}
    if swapped.model.config.model_type == "gemma2":
        how["attn_implementation"] = "eager"  # transformers' usual one leaves out the soft cap
    tokenizer = character_tokenizer()  # by the model's type another class would be chosen
    return HFLM(pretrained=str(swapped.folder), tokenizer=tokenizer, **how)


def requests(all_args):
    return [SimpleNamespace(args=args) for args in all_args]


def test_answers_are_those_of_plain_lm_eval_on_the_folder(swapped):
    asked = [*ASKED, (LONG, GREEDY)]
    theirs = plain(swapped).generate_until(requests(asked), True)
    assert swapped.engine.generate_until(asked) == theirs


def test_loglikelihoods_are_those_of_plain_lm_eval_on_the_folder(swapped):
    asked = [*PAIRS, (LONG, "abc"), ("a", "b" * 128), ("ab", LONG[:128]), (LONG[:127], "a")]
    theirs = plain(swapped).loglikelihood(requests(asked), True)
    ours = swapped.engine.loglikelihood(asked)
    assert [nats for nats, _ in ours] == close([nats for nats, _ in theirs])
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


def test_texts_have_the_nats_of_plain_lm_eval_on_the_folder(swapped):
    texts = ["a", "abc def", LONG, LONG[:128], LONG[:129], LONG + LONG]
    theirs = plain(swapped).loglikelihood_rolling(requests((t,) for t in texts), True)
    assert swapped.engine.loglikelihood_rolling(texts) == close(theirs)


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def engine(model, make_tokenizer, tmp_path_factory):
    """An engine with the weights of ``model``; a test that gives it others gives them back."""
    engine = start(model, make_tokenizer(), tmp_path_factory.mktemp("one"), batch_size=8)
    engine.take(iter(model.state_dict().items()))
    return engine


@pytest.mark.parametrize("case", CASES)
def test_every_item_of_a_task_is_lm_evals_on_the_exported_folder(
    case, standard, engine, model, tokenizer, tmp_path, lm_eval_says
):
    from transformers import AutoModelForCausalLM

    name, metric, filter_, more = CASES[case]
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    exported = SimpleNamespace(model=loaded, batch_size=8)
    theirs = lm_eval_says(exported, standard, name, **more).items(metric, filter_)
    task = standard.open(name, metric=metric, filter=filter_, **more)
    ours = task.score(LiveModel(model, tokenizer, 8, engine), range(len(task.items)))
    assert ours.tolist() == theirs


def test_order_and_neighbours_change_no_answer(engine):
    order = random.Random(0).sample(range(len(PAIRS)), len(PAIRS))
    whole = engine.loglikelihood(PAIRS)
    assert engine.loglikelihood([PAIRS[i] for i in order]) == [whole[i] for i in order]
    alone = [engine.loglikelihood([pair])[0] for pair in PAIRS]
    assert [nats for nats, _ in alone] == close([nats for nats, _ in whole])
    assert [engine.generate_until([x])[0] for x in ASKED] == engine.generate_until(ASKED)


def test_nothing_asked_is_nothing_answered(engine):
    assert engine.loglikelihood([]) == engine.generate_until([]) == []
    assert engine.loglikelihood_rolling([""]) == [0.0]


def test_what_does_not_fit_is_refused_in_the_words_of_hf(engine, model, make_tokenizer):
    other = live_model(model, make_tokenizer(), batch_size=8).engine
    for ask in (
        lambda e: e.loglikelihood([("a", "b" * 513)]),
        lambda e: e.loglikelihood([("a", "")]),
        lambda e: e.generate_until([("a", {"max_gen_toks": 600})]),
        lambda e: e.generate_until([("", {"max_gen_toks": 6})]),
    ):
        with pytest.raises(EvaluationError, match="tokens") as theirs:
            ask(other)
        with pytest.raises(EvaluationError, match="tokens") as ours:
            ask(engine)
        assert str(ours.value) == str(theirs.value)
    assert not engine.broken


@pytest.mark.parametrize("spoilt", ["model.norm.weight", "model.layers.0.self_attn.v_proj.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_spoilt_weights_raise_and_the_next_candidate_is_right(engine, model, spoilt, value):
    texts, nats = engine.generate_until(ASKED), engine.loglikelihood(PAIRS)
    weights = {name: x.clone() for name, x in model.state_dict().items()}
    weights[spoilt].flatten()[0] = value
    engine.take(iter(weights.items()))
    with pytest.raises(NonFiniteError, match="logits of the next token are NaN or infinite"):
        engine.generate_until(ASKED)
    with pytest.raises(NonFiniteError, match=r"log-likelihood of 'a' after 'say 0:' is nan"):
        engine.loglikelihood(PAIRS)
    with pytest.raises(NonFiniteError, match=r"log-likelihood of the text 'abc' is nan"):
        engine.loglikelihood_rolling(["abc"])
    engine.take(iter(model.state_dict().items()))
    assert (engine.generate_until(ASKED), engine.loglikelihood(PAIRS)) == (texts, nats)


def test_prefixes_that_other_weights_read_are_forgotten(engine, model, make_tokenizer):
    long = [(LONG * 3 + end, "a") for end in "abcd"]  # vLLM keeps blocks of 128 tokens
    other = make_model(seed=1)
    before = engine.loglikelihood(long)
    engine.take(iter(other.state_dict().items()))
    after = [nats for nats, _ in engine.loglikelihood(long)]
    engine.take(iter(model.state_dict().items()))
    hf = live_model(other, make_tokenizer(), batch_size=8).engine
    assert after == close([nats for nats, _ in hf.loglikelihood(long)])
    assert engine.loglikelihood(long) == before


def test_sampling_repeats_itself_and_twins_differ(engine):
    asked = [(PROMPTS[1], SAMPLED)] * 4 + [(PROMPTS[2], SAMPLED)]
    first = engine.generate_until(asked)
    assert engine.generate_until(asked) == first
    assert engine.generate_until(asked[4:]) == first[4:]
    assert len(set(first[:4])) > 1


def test_sampling_the_single_likeliest_token_is_greedy_choice(engine):
    how = {**GREEDY, "do_sample": True, "temperature": 1.0, "top_k": 1}
    assert engine.generate_until([(p, how) for p in PROMPTS]) == engine.generate_until(ASKED)


def test_a_penalty_gives_the_answers_of_hf(engine, model, make_tokenizer):
    hf = live_model(model, make_tokenizer(), batch_size=1).engine
    asked = [(p, {**GREEDY, "repetition_penalty": 1.3}) for p in PROMPTS]
    assert engine.generate_until(asked) == hf.generate_until(asked)
    assert engine.generate_until(asked) != engine.generate_until(ASKED)


def test_nothing_is_printed(engine, model, capfd):
    engine.take(iter(model.state_dict().items()))
    engine.generate_until(ASKED[:2])
    engine.loglikelihood([("b" * 600, "c")])
    assert capfd.readouterr() == ("", "")


def test_starting_leaves_the_global_random_state_alone(model, make_tokenizer, tmp_path):
    random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002  no fresh seed's state
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002
    start(model, make_tokenizer(), tmp_path, batch_size=8)
    assert random.getstate() == states[0]
    assert str(np.random.get_state()) == states[1]  # noqa: NPY002
    assert torch.get_rng_state().tolist() == states[2]


def test_max_model_len_cuts_prompts_there(model, make_tokenizer, tmp_path):
    short = start(model, make_tokenizer(), tmp_path, batch_size=8, max_model_len=20)
    short.take(iter(model.state_dict().items()))
    assert json.loads(short.fingerprint())["max_length"] == 20
    context = "say what is 01 and say more:"
    (whole,), (cut,) = (short.loglikelihood([(c, "x")]) for c in (context, context[-20:]))
    assert whole == cut
    with pytest.raises(EvaluationError, match="must have 1 to 20, after at least 1"):
        short.loglikelihood([("a", "b" * 21)])


@pytest.mark.parametrize("length", [1, 513])
def test_max_model_len_outside_the_models_window_is_refused(
    length, model, make_tokenizer, tmp_path
):
    with pytest.raises(ParameterError, match=f"max_model_len must be 2 to 512, .* got {length}"):
        start(model, make_tokenizer(), tmp_path, max_model_len=length)


def test_weights_that_are_missing_or_do_not_fit_break_the_engine(model, make_tokenizer, tmp_path):
    engine = start(model, make_tokenizer(), tmp_path, batch_size=8)
    weights = dict(model.state_dict())
    del weights["model.layers.1.mlp.down_proj.weight"]
    with pytest.raises(EvaluationError, match=r"could not take .*: model.layers.1.mlp.down_proj"):
        engine.take(iter(weights.items()))
    assert engine.broken
    with pytest.raises(EvaluationError, match="failed before, or was ended; it must be started"):
        engine.loglikelihood(PAIRS)


def test_a_vllm_that_cannot_start_says_why(model, make_tokenizer, tmp_path):
    with pytest.raises(EvaluationError, match=r"^vLLM cannot start: ValidationError: .*gpu_mem"):
        start(model, make_tokenizer(), tmp_path, gpu_memory_utilization=-1.0)


def test_fingerprint_names_engine_version_and_type(engine):
    facts = json.loads(engine.fingerprint())
    assert (facts["engine"], facts["dtype"], facts["batch_size"]) == ("vllm", "float32", 8)
    assert facts["vllm"].startswith("0.")
    assert facts["max_length"] == 512

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from evaluators.engines.hf import activations
from evaluators.engines.hf.activations import Load
from evaluators.engines.hf.engine import live_model
from evaluators.engines.hf.graph_forward import GraphForward, Row
from evaluators.target import Choice, Target
from merge_core.errors import EvaluationError, NonFiniteError, ParameterError

SHAPE = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": 1,
}
EXPERTS = {"num_experts_per_tok": 2}
MODELS = {
    "Llama": {},
    "Llama-tied": {"tie_word_embeddings": True},
    "Qwen3": {"head_dim": 8},
    "GPTNeoX": {},
    "Gemma2": {"head_dim": 8, "sliding_window": 24},  # caps its logits, sees a window
    "Mixtral": {**EXPERTS, "num_local_experts": 4},
    "Qwen3Moe": {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8},
    "Mamba": {},  # no cache to read on from
}


def make(name, **changes):
    import transformers

    kind = name.split("-")[0]
    own = {k: v for k, v in SHAPE.items() if kind != "Mamba" or "head" not in k}
    config = getattr(transformers, f"{kind}Config")(**{**own, **MODELS[name], **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


@pytest.fixture(scope="module", params=MODELS)
def small(request, make_tokenizer):
    return live_model(make(request.param), make_tokenizer(), batch_size=8)


SHOTS = "say a: b\n\nsay bc: de\n\nsay d: 0123\n\nsay 12: ab\n\nsay ef: gh 0123 45\n\n"
FREE = [Target.written(f"say {'abc' * (i % 5)}{i}:", [f" d{i} e."]) for i in range(9)]
SHARED = [Target.written(f"{SHOTS}say {'xy' * i}:", [f" {i} e."]) for i in range(5)]
SEVERAL = [Target.written("say a:", [" b.", " bc de.", " 0", " b."])]
CHOICES = [
    Target(
        tuple(Choice(((f"{before}{i}:", f" {x}"),)) for x in ("a", "bc", "d e 01", "f")[i % 2 :]),
        right,
        competing=True,
    )
    for i, right in enumerate([(0,), (2,), (0, 1)])
    for before in ("say ", SHOTS)
]
BY_SIZE = [
    Target(
        tuple(
            Choice(((f"{k}:", x),), less=(("", x),), size=len(x) / 2) for k, x in enumerate(answers)
        ),
        (1,),
        competing=True,
    )
    for answers in (("ab", "cde"), ("a", "b 01 23", "c"))
]
WINDOWS = [Target((Choice(("abc def 0123 " * 30, "ab"), size=77.0),))]
ALL = [*FREE, *SHARED, *SEVERAL, *CHOICES, *BY_SIZE, *WINDOWS]
WEIGHTS = [1 + i % 3 / 2 for i in range(len(ALL))]


def plain_nats(live, text):
    """Log-likelihoods by one plain forward pass over one sequence, in float64."""
    ids = live.engine._ids
    asks = ids.windows(text) if isinstance(text, str) else [ids.pair(*text)]
    found = []
    for ask in asks:
        tokens = np.concatenate([ask.context, ask.continuation]).astype(np.int64)
        logits = live.model(torch.from_numpy(tokens)[None, :-1], use_cache=False).logits[0]
        logs = logits[-len(ask.continuation) :].double().log_softmax(-1)
        found.append(logs.gather(-1, torch.from_numpy(tokens[-len(logs) :])[:, None]).sum())
    return torch.stack(found).sum(), sum(len(ask.continuation) for ask in asks)


def plain_loss(live, target):
    nats, sizes = [], []
    for choice in target.choices:
        told = [plain_nats(live, text) for text in choice.texts]
        less = [plain_nats(live, text)[0] for text in choice.less]
        nats.append(sum(x for x, _ in told) - sum(less))
        sizes.append(choice.size or sum(n for _, n in told))
    nats, right = torch.stack(nats), list(target.right)
    if target.competing:
        levels = nats / torch.tensor(sizes)
        return levels.logsumexp(0) - levels[right].logsumexp(0)
    return -nats[right].logsumexp(0) / np.mean([sizes[k] for k in right])


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def by_engine(live, targets=ALL, weights=WEIGHTS):
    losses = live.engine.backward(targets, weights)
    return losses, gradients(live.model)


def apart(ours, theirs):
    """Return the distance of gradients, next to the length of the whole."""
    assert ours.keys() == theirs.keys()
    off = sum(float((ours[k] - theirs[k]).square().sum()) for k in theirs)
    return math.sqrt(off / sum(float(x.square().sum()) for x in theirs.values()))


def test_losses_and_gradients_are_those_of_plain_forward_passes(small):
    expected = [plain_loss(small, target) for target in ALL]
    sum(w * x for w, x in zip(WEIGHTS, expected, strict=True)).backward()
    theirs = gradients(small.model)
    losses, ours = by_engine(small)
    assert losses == pytest.approx([x.item() for x in expected], rel=2e-5, abs=2e-5)
    assert apart(ours, theirs) < 1e-5
    assert small.engine.losses(ALL) == pytest.approx(losses, rel=2e-5, abs=2e-5)


@pytest.fixture(scope="module")
def llama(make_tokenizer):
    return live_model(make("Llama"), make_tokenizer(), batch_size=8)


@pytest.fixture(scope="module")
def known(llama):
    return by_engine(llama)


def room_of(live):
    return live.engine._learning._room


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_number_of_rows_in_a_batch_changes_nothing_but_rounding(
    batch_size, llama, known, make_tokenizer
):
    other = live_model(llama.model, make_tokenizer(), batch_size=batch_size)
    losses, found = by_engine(other)
    assert losses == pytest.approx(known[0], rel=1e-5, abs=1e-5)
    assert apart(found, known[1]) < 1e-5


@pytest.mark.parametrize("name", ["Llama", "GPTNeoX", "Mixtral"])
def test_layers_that_are_run_again_give_the_same_gradients(name, make_tokenizer, monkeypatch):
    dropout = {"hidden_dropout": 0.5} if name == "GPTNeoX" else {}
    live = live_model(make(name, attention_dropout=0.5, **dropout), make_tokenizer(), batch_size=8)
    losses, expected = by_engine(live)
    again = []
    usual = activations.checkpoint
    monkeypatch.setattr(
        activations, "checkpoint", lambda *a, **k: again.append(a) or usual(*a, **k)
    )
    room_of(live)._bytes = 1.0
    found_losses, found = by_engine(live)
    assert len(again) > 3 * len(ALL)
    assert found_losses == pytest.approx(losses, rel=1e-5, abs=1e-5)
    assert apart(found, expected) < 1e-5
    assert not any("forward" in vars(module) for module in live.model.modules())
    assert not live.model.training


def test_layers_that_are_run_again_keep_less(llama):
    def kept():
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.append(x.numel()) or x, lambda x: x
        ):
            out = llama.model(torch.arange(200)[None] % 48, use_cache=False).logits
        del out
        return sum(sizes)

    usual = kept()
    with activations.layers_run_again(llama.model):
        assert kept() < usual / 3


class Ended(torch.OutOfMemoryError):
    pass


@pytest.mark.parametrize("most", [3, 1, 0.5])
def test_batches_are_halved_where_memory_ends(most, llama, known, make_tokenizer, monkeypatch):
    """With half a row only one whose layers are run again fits."""
    tried = []

    def scarce(self, rows, *, shared):
        tried.append(len(rows))
        lone = not torch.is_grad_enabled() or any(
            "forward" in vars(m) for m in llama.model.modules()
        )
        if sum(len(row.continuations) for row in rows) > (1 if lone else most):
            raise Ended
        return usual(self, rows, shared=shared)

    usual = GraphForward.nats
    monkeypatch.setattr(GraphForward, "nats", scarce)
    live = live_model(llama.model, make_tokenizer(), batch_size=8)
    losses, found = by_engine(live)
    assert max(tried) > most
    assert losses == pytest.approx(known[0], rel=1e-5, abs=1e-5)
    assert apart(found, known[1]) < 1e-5
    before = len(tried)
    by_engine(live)
    again = tried[before:]
    assert max(again) <= max(most, 1)  # remembered


def test_a_sequence_that_fits_in_no_way_is_one_error_and_changes_no_gradient(
    llama, make_tokenizer, monkeypatch
):
    def none(*_, **__):
        raise Ended

    monkeypatch.setattr(GraphForward, "nats", none)
    live = live_model(llama.model, make_tokenizer(), batch_size=8)
    with pytest.raises(EvaluationError, match=r"a sequence of .* tokens does not fit the memory"):
        live.engine.backward(FREE[:1], [1.0])
    assert not gradients(llama.model)


def test_the_memory_of_a_backward_pass_is_tried_before_it_changes_gradients(
    llama, known, make_tokenizer, monkeypatch
):
    tried = []

    def scarce(*given, **settings):
        tried.append([p for p in llama.model.parameters() if p.grad is not None])
        if len(tried) < 3:
            raise Ended
        return usual(*given, **settings)

    usual = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", scarce)
    live = live_model(llama.model, make_tokenizer(), batch_size=8)
    room_of(live)._proven = 0.0  # as on an accelerator
    losses, found = by_engine(live, FREE, WEIGHTS[: len(FREE)])
    assert tried[:3] == [[], [], []]
    assert losses == pytest.approx(known[0][: len(FREE)], rel=1e-5, abs=1e-5)
    assert apart(found, by_engine(llama, FREE, WEIGHTS[: len(FREE)])[1]) < 1e-5
    count = len(tried)
    by_engine(live, FREE, WEIGHTS[: len(FREE)])
    assert len(tried) == count  # what has fitted is not tried again


def test_what_many_contexts_begin_with_is_read_once(llama, known):
    read = []
    hook = llama.model.model.embed_tokens.register_forward_hook(
        lambda module, ids, out: read.append(ids[0].numel())
    )
    try:
        llama.engine.backward(SHARED, [1.0] * len(SHARED))
        llama.model.zero_grad(set_to_none=True)
        together = sum(read)
        read.clear()
        llama.engine.backward(CHOICES, [1.0] * len(CHOICES))
        llama.model.zero_grad(set_to_none=True)
    finally:
        hook.remove()
    assert together < len(SHOTS) + len(SHARED) * 32
    assert sum(read) < 2 * len(SHOTS) + 24 * 16  # of four choices after two or three contexts


def test_losses_have_the_order_of_the_targets_and_do_not_depend_on_it(llama, known):
    order = np.random.default_rng(0).permutation(len(ALL)).tolist()
    losses, found = by_engine(llama, [ALL[i] for i in order], [WEIGHTS[i] for i in order])
    assert losses == pytest.approx([known[0][i] for i in order], rel=1e-5, abs=1e-5)
    assert apart(found, known[1]) < 1e-5


def test_hooks_on_parameters_see_all_of_the_gradient_batch_by_batch(llama, known, make_tokenizer):
    live = live_model(llama.model, make_tokenizer(), batch_size=4)
    seen = []
    weight = llama.model.model.layers[1].mlp.up_proj.weight

    def take(parameter):
        seen.append(parameter.grad.clone())
        parameter.grad = None

    hook = weight.register_post_accumulate_grad_hook(take)
    try:
        live.engine.backward(ALL, WEIGHTS)
    finally:
        hook.remove()
        llama.model.zero_grad(set_to_none=True)
    assert len(seen) > 3
    expected = known[1]["model.layers.1.mlp.up_proj.weight"]
    torch.testing.assert_close(sum(seen), expected, rtol=1e-4, atol=1e-5)


def test_parameters_without_gradients_get_none(make_tokenizer, known):
    live = live_model(make("Llama"), make_tokenizer(), batch_size=8)
    live.model.requires_grad_(False)
    live.model.model.layers[2].mlp.up_proj.weight.requires_grad_(True)
    _, found = by_engine(live)
    (name,) = found
    torch.testing.assert_close(found[name], known[1][name], rtol=1e-4, atol=1e-5)


def test_answers_are_the_same_bits_after_a_backward_pass(llama):
    pairs = [(SHOTS, " a"), ("say a:", " bc 0")]
    before = llama.engine.loglikelihood(pairs)
    by_engine(llama)
    assert llama.engine.loglikelihood(pairs) == before


def test_gradients_have_the_same_bits_in_another_process(known):
    code = (
        "import hashlib, torch; torch.set_num_threads(1)\n"
        "from tests.evaluators.engines.hf import test_learning as t\n"
        "from tests.evaluators.conftest import character_tokenizer\n"
        "live = t.live_model(t.make('Llama'), character_tokenizer(), batch_size=8)\n"
        "print(t.digest(t.by_engine(live)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == digest(known)


def digest(told):
    losses, found = told
    whole = b"".join(found[name].numpy().tobytes() for name in sorted(found))
    return hashlib.sha256(repr(losses).encode() + whole).hexdigest()


def test_losses_of_a_bfloat16_model_are_sums_in_float32(make_tokenizer):
    live = live_model(make("Llama").bfloat16(), make_tokenizer(), batch_size=8)
    target = Target((Choice(("abc def 0123 " * 12,), size=1.0),))
    expected = plain_loss(live, target).item()
    (loss,) = live.engine.losses([target])
    assert loss == pytest.approx(expected, rel=1e-4)
    assert loss != torch.tensor(loss).bfloat16().item()
    (again,) = live.engine.backward([target], [1.0])
    assert again == pytest.approx(expected, rel=1e-4)
    assert gradients(live.model)["lm_head.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("weights", [[], [1.0], [1.0, math.nan]], ids=str)
def test_there_is_one_finite_weight_per_target(weights, llama):
    with pytest.raises(
        ParameterError, match="expected one finite weight for each of 2 targets, got"
    ):
        llama.engine.backward(FREE[:2], weights)


def test_no_targets_have_no_losses(llama):
    assert llama.engine.losses([]) == []
    assert llama.engine.backward([], []) == []


def test_a_loss_that_is_nan_is_refused_before_it_reaches_a_gradient(make_tokenizer):
    live = live_model(make("Llama"), make_tokenizer(), batch_size=8)
    with torch.no_grad():
        live.model.model.norm.weight[0] = math.nan
    with pytest.raises(
        NonFiniteError, match=r"the loss of what follows .* is nan; it must be finite"
    ):
        live.engine.backward(FREE, [1.0] * len(FREE))
    assert not gradients(live.model)
    with pytest.raises(NonFiniteError, match="is nan"):
        live.engine.losses(FREE)


def test_a_quantised_model_has_no_gradients(make_tokenizer):
    live = live_model(make("Llama"), make_tokenizer(), batch_size=8)
    live.model.is_quantized = True
    with pytest.raises(
        ParameterError, match=r"^LlamaForCausalLM is quantised: its weights have no"
    ):
        live.engine.backward(FREE[:1], [1.0])


def test_a_model_without_parameters_to_learn_is_refused(make_tokenizer):
    live = live_model(make("Llama").requires_grad_(False), make_tokenizer(), batch_size=8)
    with pytest.raises(ParameterError, match="no parameter of the model is to have a gradient"):
        live.engine.backward(FREE[:1], [1.0])
    assert len(live.engine.losses(FREE)) == len(FREE)


def test_a_text_without_tokens_has_no_loss(llama):
    assert llama.engine.losses([Target((Choice(("",)),)), FREE[0]])[0] == 0.0


def test_losses_of_a_model_that_learns_nothing_have_a_bound_on_their_batches_too(make_tokenizer):
    live = live_model(make("Llama").requires_grad_(False), make_tokenizer(), batch_size=512)
    live.engine.losses(FREE)
    row = Row(np.arange(200, dtype=np.int32), (np.arange(2, dtype=np.int32),))
    load = Load().with_rows([row], shared=True)
    most = room_of(live)._bytes / (200 * 16 * 32 * 4)
    rows = [Row(np.full(200, i, dtype=np.int32), row.continuations) for i in range(int(most) + 2)]
    assert room_of(live).holds(load)
    assert not room_of(live).holds(Load().with_rows(rows, shared=True))


def test_gradients_have_the_same_bits_with_several_threads(make_tokenizer):
    live = live_model(make("Llama", hidden_size=256), make_tokenizer(), batch_size=8)
    try:
        torch.set_num_threads(2)
        told = {digest(by_engine(live, CHOICES, [1.0] * len(CHOICES))) for _ in range(6)}
    finally:
        torch.set_num_threads(1)
    assert len(told) == 1

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evaluators.engines.hf.engine import live_model
from evaluators.target import Choice, Target

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

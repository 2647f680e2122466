"""Every class of mixtures: copies of one model, in it, compute what the model computes."""

from __future__ import annotations

import pytest

from merge_core.errors import CheckpointError, ParameterError
from merge_core.mixture.classes import CLASSES, chosen
from merge_core.recipe.mixture_schema import Expert, Mixture
from tests.merge_core.tiny_classes import TEXT

HALF = {"source_model": "dense", "residual_scale": 0.5}
SIZES = {**TEXT, "num_key_value_heads": 1, "eos_token_id": 2, "bos_token_id": 1}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 5000.0,
}
DENSE = {
    "llama": ("Llama", {"rope_parameters": LLAMA3, "rms_norm_eps": 0.01}),
    "llama-wide": ("Llama", {"head_dim": 12, "tie_word_embeddings": True}),
    "llama-biased": ("Llama", {"attention_bias": True}),
    "mistral": ("Mistral", {"sliding_window": 4}),
    "mistral-full": ("Mistral", {"sliding_window": None, "head_dim": 12}),
    "qwen2": ("Qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}}),
    "qwen2-sliding": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {"head_dim": 12}),
    "olmo2": ("Olmo2", {}),
    "ernie": ("Ernie4_5", {"head_dim": 12}),
    "ernie-biased": ("Ernie4_5", {"tie_word_embeddings": False}),
    "cohere": (
        "Cohere2",
        {"sliding_window": 4, "head_dim": 12, "logit_scale": 0.3, "layer_norm_eps": 0.01}
        | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "granite": (
        "Granite",
        {"embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5}
        | {"logits_scaling": 2.0, "attention_bias": True},
    ),
    "hunyuan": ("HunYuanDenseV1", {"head_dim": 8}),
}
GRANITE = {"architecture": "granite"}
QWEN = {"shared": 1.0, "architecture": "qwen"}
# What is made of a dense model; how experts are made to add up to it; which class that is.
CASES = [
    ("llama", {}, "mixtral"),
    ("llama-wide", {}, "mixtral"),
    ("mistral", {}, "mixtral"),
    ("qwen3", {}, "qwen3_moe"),
    ("qwen3", {"dense_layers": [1]}, "qwen3_moe"),
    ("olmo2", {}, "flex_olmo"),
    ("ernie", {}, "ernie4_5_moe"),
    ("ernie-biased", {"dense_layers": [0]}, "ernie4_5_moe"),
    *((kind, {"shared": 0.5}, "glm4_moe") for kind in ("llama", "llama-wide", "mistral-full")),
    *((kind, {"shared": 0.5}, "glm4_moe") for kind in ("qwen2", "qwen3")),
    ("qwen2", {"shared": 0.5, "dense_layers": [0, 1]}, "glm4_moe"),
    ("ernie", {"shared": 0.5}, "ernie4_5_moe"),
    ("cohere", {}, "cohere2_moe"),
    ("granite", {}, "granitemoeshared"),
    ("granite", {"shared": 0.5}, "granitemoeshared"),
    *((kind, GRANITE, "granitemoeshared") for kind in ("llama", "llama-wide", "llama-biased")),
    ("mistral-full", {**GRANITE, "shared": 0.5}, "granitemoeshared"),
    ("cohere", {"shared": 0.5}, "cohere2_moe"),
    ("hunyuan", {"shared": 0.5}, "hunyuan_v1_moe"),
    *((kind, QWEN, "qwen2_moe") for kind in ("llama", "llama-wide", "mistral", "qwen2")),
    ("qwen2-sliding", {"shared": 1.0, "architecture": "Qwen MoE"}, "qwen2_moe"),
    ("qwen2", {"shared": 1.0, "architecture": "qwen2_moe", "dense_layers": [2]}, "qwen2_moe"),
]


def save(kind, folder):
    import torch
    import transformers

    name, own = DENSE[kind]
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **own})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.normal_(std=0.3)
    model.save_pretrained(folder)
    return model


def copies(shared=None, **keys):
    """Two experts of three, and perhaps a shared one, that add up to the dense model.

    ``shared`` is what the shared expert's own weight is made to be by its scale: a gate of zeros
    weighs it by a half.
    """
    made = {"base_model": "dense", "gate_mode": "random", "dtype": "float32", **keys}
    if shared is None:
        return {**made, "experts": [{"source_model": "dense"}] * 3}
    one = {"source_model": "dense", "residual_scale": shared, "gate_scale": 0.0}
    return {**made, "experts": [HALF] * 3, "shared_experts": [one]}


@pytest.mark.parametrize(("kind", "keys", "model_type"), CASES)
def test_copies_of_one_model_compute_what_it_computes(mixed, tmp_path, kind, keys, model_type):
    import torch
    from transformers import AutoModelForCausalLM

    dense = save(kind, tmp_path / "dense")
    made = mixed(copies(**keys), root=tmp_path)
    digest, live = made.build()
    assert live.config.model_type == model_type
    assert made.write(tmp_path / "out") == digest
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ids = torch.arange(3, 33).reshape(2, 15)
    with torch.no_grad():
        expected, got, loaded = (model(ids).logits for model in (dense, live, fresh))
    assert loaded.equal(got)
    assert (got - expected).abs().max() < 1e-4 * expected.abs().max()


def test_mixture_generates_with_a_cache_what_it_generates_without(mixed, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    dense = save("llama", tmp_path / "dense")
    made = mixed(copies(), root=tmp_path)
    made.write(tmp_path / "out")
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ids = torch.arange(3, 13)[None]
    how = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    texts = [
        model.generate(ids, use_cache=cached, **how).tolist()
        for model in (dense, made.build()[1], fresh)
        for cached in (True, False)
    ]
    assert len(texts[0][0]) == 22
    assert texts == [texts[0]] * 6


@pytest.mark.parametrize(
    ("kind", "keys", "rule"),
    [
        (
            "mistral",
            {"shared": 0.5, "architecture": "deepseek"},
            "says sliding_window 4, for which",
        ),
        ("qwen2-sliding", {"shared": 0.5}, "DeepSeek MoE has no word"),
    ],
)
def test_what_the_class_has_no_word_for_is_named(mixed, tmp_path, kind, keys, rule):
    save(kind, tmp_path / "dense")
    with pytest.raises(CheckpointError) as caught:
        mixed(copies(**keys), root=tmp_path)
    assert rule in str(caught.value)


def test_biases_that_the_class_has_no_place_for_are_named(mixed, tmp_path):
    save("llama-biased", tmp_path / "dense")
    with pytest.raises(CheckpointError) as caught:
        mixed(copies(), root=tmp_path)
    rule = (
        "model.layers.0.self_attn.k_proj.bias: dense has it, Mixtral has no such tensor (12 such)"
    )
    assert rule in str(caught.value)


def experts(count):
    return tuple(Expert(f"m{i}", (f"p{i}",)) for i in range(count))


@pytest.mark.parametrize(
    ("mixture", "name"),
    [
        (Mixture(experts(2)), "Mixtral"),
        (Mixture(experts(2), shared_experts=(Expert("s"),)), "DeepSeek MoE"),
        (Mixture(experts(2), shared_experts=(Expert("s", ("x",)),)), "Qwen MoE"),
        (Mixture(experts(2), shared_experts=(Expert("s"),), gate_mode="random"), "DeepSeek MoE"),
        (Mixture(experts(2), shared_experts=(Expert("s"),), dense_layers=(0,)), "DeepSeek MoE"),
        (
            Mixture(experts(2), (Expert("s"),), "random", architecture="QWEN", dense_layers=(1,)),
            "Qwen MoE",
        ),
    ],
)
def test_first_class_that_has_what_is_asked_for_is_taken(mixture, name):
    assert chosen(mixture, "llama", "base").name == name


@pytest.mark.parametrize(
    ("mixture", "model_type", "rule"),
    [
        (Mixture(experts(2)), "gemma2", "moe: base is a model of type 'gemma2', of which no class"),
        (Mixture(experts(2), architecture="mixtrl"), "llama", "did you mean 'Mixtral'?"),
        (Mixture(experts(2), architecture="mixtral"), "qwen3", "DeepSeek MoE or Qwen3 MoE"),
        (
            Mixture(experts(2), shared_experts=experts(2)),
            "llama",
            "Mixtral: takes 0 shared_experts, got 2; DeepSeek MoE: takes 1",
        ),
        (
            Mixture(experts(1), (Expert("s"),), "random", 1, "deepseek"),
            "llama",
            "DeepSeek MoE: takes at least 2 experts, got 1",
        ),
        (Mixture(experts(2)), "qwen2", "Qwen MoE: takes 1 shared_experts, got 0"),
        (Mixture(experts(2), dense_layers=(1,)), "llama", "Mixtral: has experts in every layer"),
        (
            Mixture(experts(2), (Expert("s"),), architecture="deepseek", dense_layers=(1,)),
            "llama",
            "takes the first layers as dense_layers, got [1]",
        ),
        (
            Mixture(experts(2), (Expert("s"),), architecture="qwen"),
            "llama",
            "Qwen MoE: weighs its shared expert by prompts; give it positive_prompts",
        ),
        (
            Mixture(experts(2), (Expert("s", ("x",)),), architecture="deepseek"),
            "llama",
            "DeepSeek MoE: has no gate for its shared expert; remove its prompts",
        ),
    ],
)
def test_what_no_class_has_is_named(mixture, model_type, rule):
    with pytest.raises(ParameterError) as caught:
        chosen(mixture, model_type, "base")
    assert rule in str(caught.value)


def test_every_class_stands_in_the_cases_and_is_one_of_transformers():
    import transformers

    assert {model_type for _, _, model_type in CASES} == {one.model_type for one in CLASSES}
    for one in CLASSES:
        config = getattr(transformers, one.architecture).config_class
        assert config.model_type == one.model_type

"""Tiny random models of any class: a class of transformers by its name, and what its config has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LAYERS = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2}
TEXT = {**LAYERS, **HEADS, "vocab_size": 60, "max_position_embeddings": 64, "pad_token_id": 0}
LATENT = {
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}
EXPERTS = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
CLASSES: dict[str, tuple[str, str, dict[str, Any]]] = {  # model, config, what the config has
    "deepseek-v2": ("DeepseekV2ForCausalLM", "DeepseekV2Config", {**TEXT, **LATENT, **EXPERTS}),
    "deepseek-v3": ("DeepseekV3ForCausalLM", "DeepseekV3Config", {**TEXT, **LATENT, **EXPERTS}),
    "glm4-moe": ("Glm4MoeForCausalLM", "Glm4MoeConfig", {**TEXT, **EXPERTS, "head_dim": 8}),
    "gpt-oss": (
        "GptOssForCausalLM",
        "GptOssConfig",
        {**TEXT, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
    ),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**TEXT, "head_dim": 8}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", TEXT),
    "smollm3": ("SmolLM3ForCausalLM", "SmolLM3Config", TEXT),
    "cohere2": ("Cohere2ForCausalLM", "Cohere2Config", TEXT),
    "bamba": (
        "BambaForCausalLM",
        "BambaConfig",
        {**TEXT, "attn_layer_indices": [1, 3], "mamba_n_heads": 4, "mamba_d_head": 8}
        | {"mamba_d_state": 4, "mamba_n_groups": 1},
    ),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 2, "vocab_size": 60},
    ),
}


def save(kind: str, folder: Path, seed: int, dtype: str = "float32", **changes: Any) -> None:
    """Save a model of which no tensor is constant."""
    import torch
    import transformers

    model, config, own = CLASSES[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = getattr(transformers, model)(getattr(transformers, config)(**{**own, **changes}))
        with torch.no_grad():
            for tensor in made.state_dict().values():
                if tensor.is_floating_point():
                    tensor.normal_(std=0.2)
    made.to(getattr(torch, dtype)).save_pretrained(folder)

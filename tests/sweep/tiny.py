"""Model classes of transformers, each as a tiny random model: its config is shrunk by rule.

A rule goes by a key's name, whatever the class. What follows from sizes is left to the class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

MOST = 3_000_000  # parameters of what counts as tiny
VOCABULARY = 128
SIZES: tuple[tuple[str, int], ...] = (  # the first pattern that a whole key matches
    (r"(num|n)_(hidden_)?layers?|n_layer|num_layers|.*_layers|depth|num_blocks|n_layers", 2),
    (r".*vocab_size|vocabulary_size", VOCABULARY),
    (r"(num|n)_(key_value|kv)_heads|multi_query_group_num|.*_kv_heads", 2),
    (
        r"(.*_)?(num|n)_?(attention_)?heads?|n_head|num_.*heads|.*_num_heads|encoder_attention_heads|decoder_attention_heads",
        4,
    ),
    (r"head_dim|.*_head_dim|attention_head_size|head_size|d_kv|kv_channels|qk_nope.*", 8),
    (r".*lora_rank|rank|.*_rank|.*_low_rank.*", 8),
    (
        r".*intermediate_size|ffn_dim|.*ffn_dim|n_inner|d_ff|ffn_hidden_size|.*ffn_hidden.*|mlp_dim|block_ff_dim",
        32,
    ),
    (
        r"(.*_)?hidden_size|d_model|n_embd|embed_dim|.*embed_dim|dim|hidden_dim|word_embed_proj_dim|lru_width",
        32,
    ),
    (
        r"num_experts_per_tok|num_experts_per_token|moe_topk|moe_k|top_k_experts|num_selected_experts|topk_group|n_group",
        1,
    ),
    (r".*(num|n)_?.*experts|moe_num_experts|num_experts", 4),
    (
        r"max_.*position.*|max_.*len.*|n_positions|.*seq_len.*|n_ctx|context_length|max_window.*|sliding_window",
        64,
    ),
    (r"image_size|max_image_size|img_size", 16),
    (r"patch_size|.*patch_size", 8),
)
HEADS, LAYERS = r"num_key_value_heads", r"num_hidden_layers|num_layers"
SECTIONED = ("", 0)  # positions in three parts, for text, height and width
SECTIONS = [1, 1, 2]  # of half a head
Rules = tuple[tuple[str, int], ...]
ATTEMPTS: tuple[Rules, ...] = (  # rules before the others; the first that does
    (),
    ((HEADS, 4),),  # classes whose keys and values have a head for each of the queries'
    ((LAYERS, 4),),  # classes in which only each fourth layer is attention
    ((HEADS, 4), (LAYERS, 4)),
    (SECTIONED,),
    (SECTIONED, (HEADS, 4)),
)


@cache
def classes() -> dict[str, tuple[Any, Any]]:
    """Return class name -> (config class, model class) of all that write text."""
    import transformers
    from transformers.models.auto import modeling_auto as auto

    found = {}
    for mapping in (
        auto.MODEL_FOR_CAUSAL_LM_MAPPING,
        auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    ):
        for config_class, model_class in mapping.items():
            for one in model_class if isinstance(model_class, tuple) else (model_class,):
                if hasattr(transformers, one.__name__):
                    found.setdefault(one.__name__, (config_class, one))
    return dict(sorted(found.items()))


def config(name: str) -> Any:
    """Return a config of small sizes with which the class can read a prompt.

    Raises:
        Exception: There is none; whatever transformers raises at the first attempt.
    """
    config_class, model_class = classes()[name]
    defaults, errors = config_class().to_dict(), []
    for rules in ATTEMPTS:
        try:
            found = config_class(**_changes(defaults, (*rules, *SIZES)))
            answer(model(model_class, found, 0))
        except Exception as error:
            errors.append(error)
        else:
            return found
    raise errors[0]


def model(model_class: Any, found: Any, seed: int) -> Any:
    """Return a random model; no two of its tensors, and no two seeds, have the same values.

    Raises:
        ValueError: It is not tiny.
    """
    with torch.device("meta"):
        size = sum(x.numel() for x in model_class._from_config(found).parameters())
    if size > MOST:
        raise ValueError(f"{size:,} parameters are not tiny")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        made = model_class._from_config(found).eval()
        for weight in made.parameters():
            weight += 0.02 * torch.randn(weight.shape)
    return made


def answer(made: Any) -> torch.Tensor:
    """Return what a model answers to a prompt, ``(1, tokens, vocabulary)``."""
    prompt = torch.tensor([[5, 9, 20, 11, 7]])
    twice = {"decoder_input_ids": prompt} if made.config.is_encoder_decoder else {}
    with torch.no_grad():
        logits: torch.Tensor = made(input_ids=prompt, **twice).logits
    return logits


def _changes(data: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """Return the keys of a config that are too large, at any depth, with the sizes they get."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if key == "rope_parameters" and rules[0] == SECTIONED:
            found[key] = {"rope_type": "default", **(value or {}), "mrope_section": SECTIONS}
        elif isinstance(value, dict) and key.endswith("config"):
            kind = {"model_type": value["model_type"]} if "model_type" in value else {}
            found[key] = _changes(value, rules) | kind
        elif isinstance(value, int) and not isinstance(value, bool):
            size = next((size for rule, size in rules if re.fullmatch(rule, key)), None)
            if size is not None and value > size:
                found[key] = size
            elif key.endswith("token_id") and value >= VOCABULARY:
                found[key] = 1
    return found

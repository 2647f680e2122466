"""The config of a mixture, made from that of the dense models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from merge_core.architecture import model_class
from merge_core.errors import CheckpointError, shown
from merge_core.mixture.classes import Counts, MixtureClass

# Keys of which nothing is left to keep: what they say is in the tensors' names and shapes, or says
# how training was spread over machines.
IN_TENSORS = {"head_dim", "attention_bias", "mlp_bias", "use_bias", "intermediate_size"}
INERT = {"pretraining_tp", "use_cache", "initializer_range", "attention_dropout"}
TOLD = {"tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id"}
NAMES = (
    "model_type",
    "architectures",
    "transformers_version",
    "auto_map",
    "_name_or_path",
    "dtype",
)


def whole_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a config, of which transformers makes a model, with all that its class adds to it."""
    return _whole_config(json.dumps(config, sort_keys=True))


@lru_cache(maxsize=64)
def _whole_config(config: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = model_class.config_of(json.loads(config)).to_dict()
    return found


def mixture_config(
    dense: Mapping[str, Any], found: MixtureClass, counts: Counts, biased: bool, where: str
) -> dict[str, Any]:
    """Return the ``config.json`` of a mixture.

    What the dense class takes for granted is written out, since the other class may take something
    else for granted.

    Args:
        dense: The dense part's config, one of which transformers makes a model.
        found: The class.
        counts: Of its experts.
        biased: Whether the dense part's queries have a bias.
        where: What has that config, for messages.

    Raises:
        CheckpointError: It says something for which the class has no word.
    """
    full = whole_config(dense)
    own, words = _words(str(dense["model_type"])), _words(found.model_type)
    common = _words(None)
    said = {key for key in own if key not in common or key in dense or key in TOLD} - {*NAMES}
    lost = {key: full[key] for key in said - words if not _says_nothing(key, full[key])}
    for key, value in sorted(lost.items()):
        raise CheckpointError(
            f"{where}: its config says {key} {shown(value)}, for which {found.name} has no word "
            f"({len(lost)} such keys); choose another moe.architecture, or another model"
        )
    kept = {key: full[key] for key in full if key in said and key in words}
    usual = full["hidden_size"] // full["num_attention_heads"]
    width = full.get("head_dim") or usual
    if "head_dim" in words or width != usual:
        kept["head_dim"] = width
    return {
        "architectures": [found.architecture],
        "model_type": found.model_type,
        **kept,
        **_attention(found, full, biased),
        **found.keys(counts),
    }


@lru_cache(maxsize=16)
def _words(model_type: str | None) -> frozenset[str]:
    """Return the keys of a class's config; None: those that all configs have."""
    import transformers

    kind = transformers.PreTrainedConfig
    return frozenset((transformers.CONFIG_MAPPING[model_type] if model_type else kind)().to_dict())


def _says_nothing(key: str, value: Any) -> bool:
    """Return whether a key may be left out: it is in the tensors, or is what it is anyway."""
    if key in IN_TENSORS | INERT or value is None or value is False:
        return True
    if key == "layer_types":
        return {*value} == {"full_attention"}
    return key == "max_window_layers"  # without sliding windows it counts nothing


def _attention(found: MixtureClass, full: Mapping[str, Any], biased: bool) -> dict[str, Any]:
    """Return what a class that makes several kinds of attention must be told of it."""
    if found.model_type == "qwen2_moe":
        return {"qkv_bias": biased, **_everywhere_sliding(full)}
    if found.model_type == "granitemoeshared" and full["model_type"] != "granite":
        width = full.get("head_dim") or full["hidden_size"] // full["num_attention_heads"]
        ones = ("embedding_multiplier", "residual_multiplier", "logits_scaling")
        return {**dict.fromkeys(ones, 1.0), "attention_multiplier": width**-0.5}
    if found.model_type == "glm4_moe":
        rope = {**full["rope_parameters"], "partial_rotary_factor": 1.0}
        told = {"use_qk_norm": full["model_type"] == "qwen3", "rope_parameters": rope}
        return {**told, "attention_bias": biased, "num_nextn_predict_layers": 0}
    return {}


def _everywhere_sliding(full: Mapping[str, Any]) -> dict[str, Any]:
    """Return Mistral's sliding window in the words of a class that lists it for each layer."""
    if full["model_type"] != "mistral" or full.get("sliding_window") is None:
        return {}
    kinds = ["sliding_attention"] * full["num_hidden_layers"]
    return {"use_sliding_window": True, "max_window_layers": 0, "layer_types": kinds}

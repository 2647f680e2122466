"""Names that users write where they change nothing: they belong elsewhere, or did so once."""

from __future__ import annotations

from functools import lru_cache

from merge_core.contract import Method
from merge_core.methods.registry import METHODS, method

_RECIPE = "the recipe itself"
_PLACES = {
    **dict.fromkeys(("merge_method", "models", "slices", "modules", "base_model"), _RECIPE),
    **dict.fromkeys(("dtype", "out_dtype", "seed", "name", "documents"), _RECIPE),
    **dict.fromkeys(("tokenizer", "tokenizer_source", "chat_template"), _RECIPE),
    "parameters": "the recipe, an entry of models or slices, or a source",
    "sources": "an entry of slices",
    "layer_range": "a source of slices",
    "model": "an entry of models or a source of slices",
    **dict.fromkeys(("filter", "value"), "an entry of a parameter"),
    **dict.fromkeys(("source", "tokens", "pad_to_multiple_of"), "tokenizer"),
    **dict.fromkeys(("force", "kind", "token", "token_id"), "an entry of tokenizer.tokens"),
    **dict.fromkeys(("path", "revision", "lora"), "a model"),
    "moe": _RECIPE,
    **dict.fromkeys(("gate_mode", "experts_per_token", "shared_experts", "dense_layers"), "moe"),
    **dict.fromkeys(
        ("source_model", "positive_prompts", "negative_prompts"), "an entry of experts"
    ),
    **dict.fromkeys(("noise_scale", "residual_scale", "gate_scale"), "an entry of experts"),
}
# read by earlier versions of mergekit, declared and never read, or an option of its command line
_ONCE = (
    *("embed_slerp", "int8_mask", "residual_weight", "allow_negative_weights", "select_topk"),
    *(
        "allow_crimes",
        "transformers_cache",
        "lora_merge_cache",
        "lora_merge_dtype",
        "cuda",
        "smooth",
    ),
    *("device", "low_cpu_memory", "out_shard_size", "copy_tokenizer", "clone_tensors"),
    *("trust_remote_code", "random_seed", "lazy_unpickle", "write_model_card", "read_to_gpu"),
    *("safe_serialization", "multi_gpu", "num_threads", "verbose", "verbosity", "quiet"),
)
_NOW = {
    "random_seed": "; the seed of random masks is `seed`",
    "allow_crimes": "; the command line has --allow-crimes",
    "trust_remote_code": "; the command line has --trust-remote-code",
}


@lru_cache(maxsize=1)
def _owners(methods: tuple[str, ...]) -> dict[str, list[str]]:
    """Return parameter -> the methods that have it."""
    owners: dict[str, list[str]] = {}
    for owner in methods:
        for param in method(owner).params:
            owners.setdefault(param.name, []).append(owner)
    return owners


def why_idle(name: str, parameters_of: Method | None = None) -> str | None:
    """Return why a key changes nothing where it stands, ``rule``; None for a name never known.

    Args:
        name: The key.
        parameters_of: The method whose ``parameters`` it stands in; None: it stands elsewhere.
    """
    if name in _PLACES:
        return f"changes nothing here; it belongs to {_PLACES[name]}"
    owners = _owners(METHODS.names()).get(name)
    if owners and parameters_of is not None:
        has = ", ".join(param.name for param in parameters_of.params) or "no parameters"
        return f"changes nothing: {parameters_of.name!r} does not read it; it has {has}"
    if owners:
        shown = ", ".join(owners[:3]) + (", ..." if len(owners) > 3 else "")
        return f"changes nothing here; it belongs under parameters, where {shown} read it"
    if name in _ONCE:
        return f"changes nothing, here and in today's mergekit{_NOW.get(name, '')}; remove it"
    return None

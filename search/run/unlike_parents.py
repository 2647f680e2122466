"""In what models of a study differ that a merge of their weights does not bring together.

Candidates have one config and one tokenizer, those of the base (or of the first model). Weights
that were tuned under others may have the same shapes: then nothing fails, and the merge is worse
than it need be. Merges of other architectures are refused elsewhere; here all is only said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from merge_core.architecture.model_class import config_of
from merge_core.architecture.remote_code import located
from merge_core.errors import MergeError
from merge_core.json_text import read_json
from merge_core.tokenizer.parent_tokenizer import has_tokenizer, open_tokenizer

CONFIG = "config.json"
COMPARED = (  # of a config: what decides how weights are used, whatever their shapes
    *("architectures", "model_type"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "num_experts_per_tok"),
    *("rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor"),
    *("max_position_embeddings", "sliding_window"),
    *("hidden_act", "hidden_activation", "rms_norm_eps", "layer_norm_eps"),
    *("attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar"),
    *("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"),
)
LONGEST = 60  # characters of a value that are shown


def unlike_parents(folders: Mapping[str, Path], main: str, tokenizer: Any) -> list[str]:
    """Return a warning for each way in which a model is unlike the main one.

    Args:
        folders: Model -> its folder, of those that are on this disk.
        main: The model whose config and tokenizer candidates have; is among them.
        tokenizer: Its.
    """
    own = folders[main]
    found: list[str] = []
    for name, folder in folders.items():
        if folder != own:
            found += _of_config(name, folder, main, own)
            found += _of_tokenizer(name, folder, main, tokenizer)
    return found


def _of_config(name: str, folder: Path, main: str, own: Path) -> list[str]:
    if not ((folder / CONFIG).is_file() and (own / CONFIG).is_file()):
        return []
    try:
        theirs, ours = (_flat(_filled(one)) for one in (folder, own))
    except (MergeError, ValueError) as error:
        return [f"{name}: its config is not compared with that of {main}: {error}"]
    others = [
        f"{key} {_shown(theirs.get(key))} (there {_shown(ours.get(key))})"
        for key in dict.fromkeys([*ours, *theirs])
        if theirs.get(key) != ours.get(key)
    ]
    if not others:
        return []
    what = f"its weights were tuned under another config than that of {main}"
    return [f"{name}: {what}, which candidates have: {', '.join(others)}"]


def _filled(folder: Path) -> dict[str, Any]:
    """Return what is compared of a folder's config, with the defaults of its class."""
    made = config_of(located(read_json(folder / CONFIG), folder))
    text = made.get_text_config().to_dict()
    whole = made.to_dict()
    kept = {key: text[key] for key in COMPARED if text.get(key) is not None}
    return kept | {key: whole[key] for key in COMPARED[:2] if whole.get(key) is not None}


def _flat(found: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Return members of mappings under key paths."""
    flat: dict[str, Any] = {}
    for key, value in found.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{start}{key}.")
        else:
            flat[f"{start}{key}"] = value
    return flat


def _of_tokenizer(name: str, folder: Path, main: str, tokenizer: Any) -> Iterator[str]:
    if not has_tokenizer(folder):
        return
    try:
        theirs = open_tokenizer(folder)
    except MergeError as error:
        yield f"{error}; candidates have that of {main}"
        return
    own, vocabulary = tokenizer.get_vocab(), theirs.get_vocab()
    others = sum(own.get(token, i) != i for token, i in vocabulary.items())
    if others:
        yield (
            f"{name}: {others} tokens have other numbers in its tokenizer than in that of {main}, "
            "which candidates have"
        )
    ours, special = tokenizer.special_tokens_map, theirs.special_tokens_map
    keys = [key for key in dict.fromkeys([*ours, *special]) if ours.get(key) != special.get(key)]
    if keys:
        told = [f"{k} {_shown(special.get(k))} (there {_shown(ours.get(k))})" for k in keys]
        yield (
            f"{name}: its special tokens are not those of {main}, which candidates have: "
            f"{', '.join(told)}"
        )
    if theirs.chat_template != tokenizer.chat_template:
        yield f"{name}: {_templates(theirs, tokenizer, main)}"


def _templates(theirs: Any, own: Any, main: str) -> str:
    if own.chat_template is None:
        return f"has a chat template, and {main}, with whose tokenizer candidates are asked, none"
    if theirs.chat_template is None:
        return f"has no chat template; candidates are asked with that of {main}"
    return f"has another chat template than {main}, with whose candidates are asked"


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"

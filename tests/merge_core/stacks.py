"""Stacks that cannot be, and what is said of them before a tensor is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

Part = tuple[str, int, int]  # model, first layer, layer after the last


def recipe_of(slices: Sequence[Part], indent: str = "") -> str:
    """Return the YAML of a passthrough recipe, a source on its own two lines."""
    lines = ["merge_method: passthrough", "dtype: float32", "slices:"]
    for model, first, last in slices:
        lines += ["- sources:", f"  - model: {model}", f"    layer_range: [{first}, {last}]"]
    return "".join(f"{indent}{line}\n" for line in lines)


# slices -> line of the recipe, key path, rule
WRONG: dict[str, tuple[list[Part], tuple[int, str, str]]] = {
    "hidden sizes": (
        [("one", 0, 2), ("wide", 2, 4)],
        (
            8,
            "slices[1].sources[0].model",
            (
                "expected layers of one width, got wide, whose hidden size is 32, beside one "
                "with 16; choose models of one hidden size"
            ),
        ),
    ),
    "out of range": (
        [("one", 0, 2), ("two", 2, 5)],
        (
            9,
            "slices[1].sources[0].layer_range",
            "two has 4 layers, got [2, 5]; the last number is the layer after the last",
        ),
    ),
    "another class": (
        [("one", 0, 2), ("neox", 0, 1)],
        (
            9,
            "slices[1].sources[0].layer_range",
            "neox has no model.layers; models whose layers are stacked share a class",
        ),
    ),
    "no layer": ([("one", 2, 2)], (3, "slices", "expected at least one layer, got none")),
    "turned round": (
        [("one", 3, 2)],
        (6, "slices[0].sources[0].layer_range", "expected 0 <= first <= last, got [3, 2]"),
    ),
}
VOCABULARY = (  # an embedding of 55 tokens, a head of its own with 80
    [("one", 0, 2), ("more", 2, 4)],
    (
        "lm_head.weight: 80 tokens, where the embedding and the config, that of one, have 55; give "
        "all slices' models one vocabulary with tokenizer: {source: union} or {source: base}"
    ),
)


def models(family: Callable[..., Path], own_family: Callable[..., Path]) -> Path:
    """Return a folder with a tied family, ``wide``, ``neox`` and ``more`` (tokens)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    root = own_family()
    shutil.copytree(family("gpt-neox") / "one", root / "neox")
    sizes = {"num_hidden_layers": 4, "intermediate_size": 24, "num_attention_heads": 2}
    for name, width, tokens in (("wide", 32, 55), ("more", 16, 80)):
        config = LlamaConfig(
            **sizes, num_key_value_heads=1, hidden_size=width, vocab_size=tokens, pad_token_id=0
        )
        with torch.random.fork_rng():
            LlamaForCausalLM(config).save_pretrained(root / name)
        for file in (root / "one").glob("token*"):
            shutil.copy(file, root / name)
    return root

"""Llama-shaped models of random weights, and a recipe for each method: what benchmarks merge."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

LAYERS, VOCABULARY = 8, 32000


def make_parents(folder: Path, millions: float, experts: int) -> list[str]:
    """Write Llama-shaped models of random bfloat16 weights: a base, and experts around it."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, LlamaConfig

    # a layer of width h has 4 h^2 weights of attention and 8 h^2 of its three MLP matrices
    a, b = 12 * LAYERS, VOCABULARY
    width = (-b + (b * b + 4 * a * millions * 1e6) ** 0.5) / (2 * a)
    h = max(64, round(width / 64) * 64)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=h,
        intermediate_size=h * 8 // 3,
        num_hidden_layers=LAYERS,
        num_attention_heads=h // 64,
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {n: x.shape for n, x in model.named_parameters()}
    stream = torch.Generator().manual_seed(0)
    base = {n: torch.randn(shape, generator=stream) * 0.02 for n, shape in shapes.items()}
    names = ["base", *(f"expert{i + 1}" for i in range(experts))]
    for name in names:
        spread = 0.0 if name == "base" else 0.002
        tensors = {
            n: (x + spread * torch.randn(x.shape, generator=stream)).bfloat16()
            for n, x in base.items()
        }
        (folder / name).mkdir()
        config.save_pretrained(folder / name)
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
    return names


def commands(name: str, folder: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """Write a recipe for a method; return mergekit's command for it, and ours, to run in there."""
    from merge_core.methods.registry import method

    text = recipe_for(method(name), names).to_yaml().replace("dtype: bfloat16", "dtype: float32")
    (folder / "recipe.yaml").write_text(f"{text}out_dtype: bfloat16\n")
    programs = Path(sys.executable).parent
    theirs = [str(programs / "mergekit-yaml"), "recipe.yaml", "out", "--no-copy-tokenizer"]
    theirs.append("--no-write-model-card")  # it would ask the hub
    return theirs, [str(programs / "mergetune"), "merge", "recipe.yaml", "out"]


def recipe_for(found: Any, names: list[str]) -> Any:
    """Return a recipe with every parameter where its declaration would start it."""
    from merge_core.recipe.schema import Recipe, Source

    def values(scope: str) -> tuple[tuple[str, Any], ...]:
        params = [p for p in found.params if p.scope == scope]
        usual = {p.name: p.default if p.start is None else p.start for p in params}
        return tuple(sorted((name, x) for name, x in usual.items() if x is not None))

    most = found.models[1] or len(names)
    base, *experts = names
    listed = names[:most] if found.base == "none" else experts[: most - 1]
    return Recipe(
        merge_method=found.name,
        models=tuple(Source(name, values("model")) for name in listed),
        base_model=None if found.base == "none" else base,
        parameters=values("shared"),
        dtype="bfloat16",
    )

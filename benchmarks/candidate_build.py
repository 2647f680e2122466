"""Question: does building a candidate cost what copying the model in memory costs?

Prints the ratio build / copy for every merge method, from one process: *build* overwrites the live
model with a merge of bfloat16 parents (whose pages are in memory) and hashes the result, *copy* is
``copy_`` of the same tensors from memory to memory. A ratio travels between machines; a number of
seconds does not. 1 would be a copy and no arithmetic.

    python benchmarks/candidate_build.py --millions 25 --experts 2 --threads 2
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LAYERS, VOCABULARY = 8, 8192


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


def recipe_for(found: Any, names: list[str]) -> Any:
    """Return a recipe with every parameter where its declaration would start it."""
    from merge_core.recipe import Recipe, Source

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


def seconds(act: Callable[[], Any], at_least: float = 0.0) -> float:
    """Return how long ``act`` takes, on average over ``at_least`` that many seconds."""
    start = time.perf_counter()
    n = 0
    while n == 0 or time.perf_counter() - start < at_least:
        act()
        n += 1
    return (time.perf_counter() - start) / n


def measure(candidate: Any, plan: Any, parents: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """Return the ratio of paired rounds, the first of which only warms up."""
    source = [parents["base"].tensor(step.tensor).clone() for step in plan.steps]
    target = [tensor.clone() for tensor in source]

    def copy() -> None:
        for to, tensor in zip(target, source, strict=True):
            to.copy_(tensor)

    pairs = []
    for _ in range(rounds + 1):
        build = seconds(lambda: candidate.build(plan))
        # as long as the build, so that other programs on the machine slow both
        pairs.append((build, seconds(copy, at_least=build)))
    ratios = [build / copied for build, copied in pairs[1:]]
    return {
        "ratio": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "n": rounds,
        "build_seconds": statistics.median(build for build, _ in pairs[1:]),
        "copy_seconds": statistics.median(copied for _, copied in pairs[1:]),
        "models": len(plan.steps[0].inputs()),
    }


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure every method asked for, printing as it goes."""
    import torch

    from merge_core.candidate import Candidate
    from merge_core.methods.registry import METHODS, method
    from merge_core.parent import open_parents
    from merge_core.plan import plan

    if options.threads:
        torch.set_num_threads(options.threads)
    names = make_parents(folder, options.millions, options.experts)
    parents = open_parents(names, [folder])
    shapes = [info.shape for info in parents["base"].tensors.values()]
    count = sum(torch.Size(shape).numel() for shape in shapes)
    candidate = Candidate()
    found = {}
    for name in options.methods or METHODS.names():
        made = plan(recipe_for(method(name), names), parents)
        found[name] = measure(candidate, made, options.rounds)
        if not options.json:
            shown = "{ratio:6.2f} (min {min:.2f}, max {max:.2f}, n={n})".format(**found[name])
            print(f"{name:16} build/copy {shown}", flush=True)
    return {
        "benchmark": "candidate_build",
        "parameters": count,
        "experts": options.experts,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "methods": found,
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--millions", type=float, default=25, help="parameters of a model")
    parser.add_argument("--experts", type=int, default=2, help="models beside the base")
    parser.add_argument("--threads", type=int, help="of torch; its own choice if not given")
    parser.add_argument("--rounds", type=int, default=5, help="paired rounds of each method")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="all if not given")
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(options, Path(folder))))


if __name__ == "__main__":
    main()

"""What a recipe's mixture will be, and what its models' configs do not allow; none is opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merge_core.errors import DocumentError, Problems
from merge_core.json_text import read_json
from merge_core.mixture.classes import chosen
from merge_core.parents.locate import locate_here
from merge_core.recipe.mixture_schema import PROMPTED, Mixture
from merge_core.recipe.read import Reading
from merge_core.tokenizer.parent_tokenizer import has_tokenizer

ALIKE = ("model_type", "hidden_size", "num_hidden_layers")  # keys that all configs agree in


def mixture_of(reading: Reading, roots: tuple[Path, ...]) -> str:
    """Return what a recipe's mixture is, and of which class where the base model is here.

    Raises:
        DocumentError: Its models do not go together; all at once.
        ParameterError: No class is made of such models, or has what the mixture asks for.
    """
    recipe = reading.recipe
    assert recipe.moe is not None
    base = recipe.base_model or recipe.names()[0]
    folder = locate_here(base, roots)
    kind = "not known yet"
    if folder is not None:
        config = read_json(folder / "config.json")
        kind = chosen(recipe.moe, str(config.get("model_type")), base).name
        others = {name: locate_here(name, roots) for name in recipe.moe.models()}
        own = {name: read_json(x / "config.json") for name, x in others.items() if x is not None}
        problems = [*_tokenizer(recipe.moe, folder, base), *_misfits(recipe.moe, base, config, own)]
        _refuse(reading, problems)
    shared = f" and {len(recipe.moe.shared_experts)} shared" if recipe.moe.shared_experts else ""
    return (
        f"{len(recipe.moe.experts)} experts{shared}, {recipe.moe.experts_per_token} per token, "
        f"routers {recipe.moe.gate_mode}; class {kind}"
    )


def _refuse(reading: Reading, problems: Problems) -> None:
    document, _ = reading.places[reading.recipe.name]
    inside = "moe." if isinstance(document.data, dict) and "moe" in document.data else ""
    found = [reading.at(reading.recipe.name, f"{inside}{path}", rule) for path, rule in problems]
    if found:
        raise DocumentError(reading.notices.file, found)


def _tokenizer(mixture: Mixture, folder: Path, base: str) -> Problems:
    if mixture.gate_mode not in PROMPTED or has_tokenizer(folder):
        return []
    rule = f"{mixture.gate_mode} reads prompts, and {base} has no tokenizer; save it there"
    return [("gate_mode", f"{rule}, or choose another mode")]


def _misfits(
    mixture: Mixture, base: str, config: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]
) -> Problems:
    """Return key path and rule of every expert that is another kind of model by its config."""
    found: Problems = []
    for kind, experts in (("experts", mixture.experts), ("shared_experts", mixture.shared_experts)):
        for i, expert in enumerate(experts):
            own = configs.get(expert.source_model, config)
            wrong = [key for key in ALIKE if own.get(key) != config.get(key)]
            for key in wrong[:1]:
                rule = f"{key}: {base} has {config.get(key)}, this expert {own.get(key)}"
                path = f"{kind}[{i}].source_model"
                found.append((path, f"{rule}; experts must be tuned from one model"))
    return found

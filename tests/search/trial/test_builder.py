"""A study scores causal language models: others are refused when it opens, before a trial."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mergetune
from merge_core.errors import CheckpointError
from merge_core.parents.weight_files import SINGLE
from search.trial.builder import Builder
from tests.merge_core.conftest import change
from tests.search.toy import spec_of

RECIPE = """
  merge_method: linear
  models:
    - {{model: {models}/base, parameters: {{weight: {weight}}}}}
    - {{model: {models}/one, parameters: {{weight: 1}}}}
"""
STUDY = """
name: s
recipe: {recipe}
score:
  - {{evaluator: cost, metric: parameters}}
items: {{search: 2, select: 2, report: 2}}
search: {{trials: 1}}
"""


def builder_of(models: Path, folder: Path) -> Builder:
    recipe = RECIPE.format(models=models, weight="{low: 0.0, high: 1.0}")
    return Builder(spec_of(STUDY.format(recipe=recipe), folder))


def renamed(models: Path, name: str) -> Path:
    """Let the configs name another class that has the same tensors."""
    for model in ("base", "one"):
        file = models / model / "config.json"
        config = json.loads(file.read_text()) | {"architectures": [name]}
        file.write_text(json.dumps(config))
    return models


@pytest.mark.parametrize(
    ("kind", "architecture", "why"),
    [
        ("bert", "BertForMaskedLM", "BertForMaskedLM has no head that predicts the next token"),
        ("bert", "BertLMHeadModel", "BertLMHeadModel without is_decoder: true .* both directions"),
        ("t5", "T5ForConditionalGeneration", "T5For.* is an encoder and a decoder"),
    ],
)
def test_models_that_are_not_causal_are_refused_when_a_study_opens(
    own_family: Callable[..., Path], tmp_path: Path, kind: str, architecture: str, why: str
) -> None:
    models = renamed(own_family(kind), architecture)
    with pytest.raises(CheckpointError, match=rf"base: {why}.*; merge such models to a folder"):
        _ = builder_of(models, tmp_path).placement


@pytest.mark.parametrize("kind", ["llama", "gpt-neox", "gpt2", "gemma3"])
def test_causal_models_are_opened(family: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    assert builder_of(family(kind), tmp_path).placement.where == "mapped"


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_models_that_are_not_causal_are_merged_to_a_folder(
    family: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    mergetune.merge(RECIPE.format(models=family(kind), weight=1), tmp_path / "out")
    assert (tmp_path / "out" / "mergetune.json").is_file()


def test_knobs_of_a_study_of_tied_and_untied_models_reach_the_head(
    own_family: Callable[..., Path], tmp_path: Path
) -> None:
    models = own_family()
    weights = load_file(models / "one" / SINGLE)
    head = torch.ones_like(weights["model.embed_tokens.weight"])
    change(models / "one", lm_head__weight=head)
    recipe = RECIPE.format(models=models, weight="{low: 0.0, high: 1.0, per: layer}")
    builder = Builder(spec_of(STUDY.format(recipe=recipe), tmp_path))
    drawn = {x.name: i / 4 for i, x in enumerate(builder.space.dimensions)}
    plan = builder.plan(builder.space.recipe(drawn))
    values = {step.tensor: step.values[0]["weight"] for step in plan.steps}
    last = values["model.layers.3.mlp.up_proj.weight"]
    assert values["lm_head.weight"] == values["model.norm.weight"] == last
    assert values["model.embed_tokens.weight"] == values["model.layers.0.mlp.up_proj.weight"]


def test_each_tensor_that_is_merged_has_a_number_and_no_other(
    own_family: Callable[..., Path], tmp_path: Path
) -> None:
    models = own_family("llama")
    for name in ("base", "one"):
        change(models / name, model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4))
    recipe = RECIPE.format(models=models, weight="{low: 0.0, high: 1.0, per: tensor}")
    builder = Builder(spec_of(STUDY.format(recipe=recipe), tmp_path))
    drawn = {x.name: i / 100 for i, x in enumerate(builder.space.dimensions)}
    plan = builder.plan(builder.space.recipe(drawn))
    values = {f"weight/base/{step.tensor}": step.values[0]["weight"] for step in plan.steps}
    assert values == drawn

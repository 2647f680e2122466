"""Adapters on parameters, such as fused experts, are what peft merges."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_core.errors import CheckpointError, ShapeError
from merge_core.parents.checkpoint import Checkpoint
from merge_core.parents.lora_keys import CONFIG, WEIGHTS
from merge_core.parents.weight_files import SINGLE
from tests.merge_core.parents.adapters import adapted_by, train
from tests.merge_core.places import at

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 20,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "stored one by one": ("Mixtral", {"num_local_experts": 3, "num_experts_per_tok": 1}),
    "stored fused, outputs last": (
        "GptOss",
        {"num_local_experts": 3, "num_experts_per_tok": 1, "layer_types": ["full_attention"] * 2},
    ),
    "beyond the stand-in": (
        "Qwen3Moe",
        {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 72},
    ),
}
BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "one parameter": {"target_parameters": BOTH[:1], "r": 3, "lora_alpha": 5},
    "both, and modules": {"target_parameters": BOTH, "target_modules": ["q_proj"], "r": 2},
    "patterns": {
        "target_parameters": BOTH,
        "rank_pattern": {"down_proj": 1, r"0\.mlp\.experts\.gate_up_proj": 4},
        "alpha_pattern": {"experts.down_proj": 9},
        "use_rslora": True,
    },
    "a plain matrix": {"target_parameters": ["o_proj.weight"], "r": 2},
}


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """Return the folders of small models with experts."""
    import transformers

    root = tmp_path_factory.mktemp("experts")
    for kind, (name, more) in MODELS.items():
        config = getattr(transformers, f"{name}Config")(**{**SIZES, **more})
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = getattr(transformers, f"{name}ForCausalLM")(config)
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(root / kind)
    return {kind: root / kind for kind in MODELS}


def trained(base, out, options):
    return train(base, out, **{"target_modules": [], **options})


def merged(base, folder, out):
    """Return what peft's own merge stores."""
    import peft
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        peft.PeftModel.from_pretrained(model, folder).merge_and_unload().save_pretrained(out)
    return load_file(out / SINGLE)


@pytest.mark.parametrize("options", ADAPTERS)
@pytest.mark.parametrize("kind", MODELS)
def test_parameters_with_an_adapter_are_what_peft_merges(experts, tmp_path, kind, options):
    folder = trained(experts[kind], tmp_path / "a", ADAPTERS[options])
    base = Checkpoint(at(experts[kind], "base"))
    adapted, wanted = adapted_by("x", base, folder), merged(experts[kind], folder, tmp_path / "m")
    assert adapted.tensors.keys() == wanted.keys()
    changed = 0
    for name in adapted.tensors:
        found, size = adapted.tensor(name), wanted[name].abs().max()
        assert (found - wanted[name]).abs().max() <= 1e-6 * size, name
        changed += not wanted[name].equal(base.tensor(name))
    assert changed == sum(adapted.makes(name) for name in adapted.tensors) > 0


def spoilt(experts, tmp_path, change):
    kind = "stored one by one"
    folder = trained(experts[kind], tmp_path / "a", ADAPTERS["both, and modules"])
    tensors, config = load_file(folder / WEIGHTS), json.loads((folder / CONFIG).read_text())
    change(tensors, config)
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config))
    return adapted_by("base+a", Checkpoint(at(experts[kind], "base")), folder)


KEY = "base_model.model.model.layers.1.mlp.experts.lora_A.weight"
SPOILS = {
    "a target that is not there": (
        lambda t, c: c.update(target_parameters=BOTH[:1]),
        CheckpointError,
        r"experts has 2 pairs for 1 of its parameters",
    ),
    "no list": (
        lambda t, c: c.update(target_parameters="x"),
        CheckpointError,
        "target_parameters: expected a list of names",
    ),
    "one factor": (lambda t, c: t.pop(KEY), CheckpointError, "expected lora_A and lora_B alone"),
    "another rank": (
        lambda t, c: c.update(r=3),
        ShapeError,
        r"base\+a has A \(6, 24\) and B \(16, 6\) with r = 3, base is \(3, 16, 24\)",
    ),
    "whole numbers": (
        lambda t, c: t.update({KEY: t[KEY].to(torch.int32)}),
        CheckpointError,
        r"store F32, I32; use a base that is not quantized",
    ),
}


@pytest.mark.parametrize("case", SPOILS)
def test_adapter_on_parameters_that_does_not_fit_is_refused(experts, tmp_path, case):
    change, error, message = SPOILS[case]
    with pytest.raises(error, match=message):
        spoilt(experts, tmp_path, change)

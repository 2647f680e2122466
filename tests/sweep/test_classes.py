"""Twelve classes of the sweep in each of three types; ``make sweep`` has all of them."""

from __future__ import annotations

import pytest
import torch

from merge_core.output import model_folder
from tests.sweep import same, tiny

CLASSES = (  # of different conversions, ties, parts kept in float32, kinds of layers
    "AfmoeForCausalLM",
    "BloomForCausalLM",
    "DeepseekV3ForCausalLM",
    "FalconForCausalLM",
    "GPT2LMHeadModel",
    "Gemma3ForConditionalGeneration",
    "GptOssForCausalLM",
    "MambaForCausalLM",
    "Qwen2VLForConditionalGeneration",
    "Qwen3MoeForCausalLM",
    "RwkvForCausalLM",
    "T5ForConditionalGeneration",
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", same.DTYPES)
@pytest.mark.parametrize("name", CLASSES)
def test_live_candidate_is_the_exported_model_of_a_class(name, dtype, tmp_path):
    same.check(name, tiny.config(name), dtype, tmp_path)


@pytest.mark.slow
def test_classes_are_those_of_transformers_that_write_text():
    found = tiny.classes()
    assert set(CLASSES) <= set(found)
    assert len(found) > 200


@pytest.mark.parametrize("tensor", ["model.layers.1.mlp.up_proj.weight", "lm_head.weight"])
def test_weight_that_is_written_otherwise_than_live_is_found(tensor, tmp_path, monkeypatch):
    written = model_folder.write_shards

    def spoilt(plan, folder, *rest):
        from safetensors.torch import load_file, save_file

        digests = written(plan, folder, *rest)
        weights = load_file(folder / "model.safetensors")
        weights[tensor].flatten()[3] += 1e-6
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return digests

    monkeypatch.setattr(model_folder, "write_shards", spoilt)
    with pytest.raises(same.DiffersError, match=f"{tensor}: other values live than exported"):
        same.check("LlamaForCausalLM", tiny.config("LlamaForCausalLM"), "float32", tmp_path)


def test_every_tensor_of_a_tiny_model_is_its_own_and_depends_on_the_seed():
    found = tiny.config("LlamaForCausalLM")
    one, two = (
        tiny.model(tiny.classes()["LlamaForCausalLM"][1], found, seed).state_dict()
        for seed in (0, 1)
    )
    assert not any(torch.equal(one[name], two[name]) for name in one)

"""A model without weights has all else that a loaded one has."""

import json

import pytest
import torch

from merge_core.architecture import model_class
from merge_core.architecture.skeleton import loaded_type, skeleton
from tests.merge_core import tiny_classes
from tests.sweep import tiny

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def facts(model, types):
    """What a model has beside its weights."""
    return {
        "types": types,
        "buffers": {
            name: (x.dtype, x.tolist()) for name, x in model.named_non_persistent_buffers()
        },
        "training": {x.training for x in model.modules()},
        "generation": str(model.generation_config),
        "config": model.config.to_dict(),
        "ties": model.all_tied_weights_keys,
    }


def differences(folder, dtype):
    """What of a skeleton is other than of the model that transformers loads."""
    config = json.loads((folder / "config.json").read_text())
    model = skeleton(config, str(folder), dtype, "cpu")
    given = model_class.config_of(config)
    loaded = type(model).from_pretrained(folder, config=given, dtype=dtype).eval()
    here = facts(model, dict(loaded_type(model, dtype)))
    there = facts(loaded, {name: x.dtype for name, x in loaded.state_dict().items()})
    return [name for name in here if here[name] != there[name]]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", ["gemma3", "qwen2", "deepseek-v3", "gpt-oss", "smollm3", "t5"])
def test_skeleton_is_the_loaded_model_but_for_weights(tmp_path, kind, dtype):
    tiny_classes.save(kind, tmp_path, 0)
    assert differences(tmp_path, dtype) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_skeletons_of_every_class_are_the_loaded_models(tmp_path):
    found, seen = {}, 0
    for name, (_, kind) in tiny.classes().items():
        try:
            tiny.model(kind, tiny.config(name), 0).save_pretrained(tmp_path / name)
            kind.from_pretrained(tmp_path / name)
        except Exception:  # transformers cannot make it, save it or load it
            continue
        seen += 1
        wrong = differences(tmp_path / name, torch.bfloat16)
        if wrong:
            found[name] = wrong
    assert found == {}
    assert seen >= 150

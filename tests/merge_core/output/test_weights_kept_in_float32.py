"""Classes that keep some weights in float32 (routing, norms, T5's ``wo``) whatever their type."""

import pytest
import torch
import transformers

from tests.merge_core import tiny_classes

RECIPE = """
merge_method: slerp
base_model: a
models: [{model: b}]
parameters: {t: 0.3}
dtype: %s
"""


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("deepseek-v3", "bfloat16"),
        ("glm4-moe", "float16"),
        ("gpt-oss", "float16"),
        ("t5", "float16"),
    ],
)
def test_live_model_has_the_weights_of_the_exported_folder(planned, tmp_path, kind, dtype):
    for seed, name in enumerate("ab"):
        tiny_classes.save(kind, tmp_path / name, seed)
    made = planned(RECIPE % dtype, root=tmp_path)
    digest, model = made.build()
    kept = {name for name, x in model.state_dict().items() if x.dtype == torch.float32}
    assert kept, "the class keeps nothing in float32"
    assert made.write(tmp_path / "out", expected=digest) == digest
    loaded = getattr(transformers, tiny_classes.CLASSES[kind][0]).from_pretrained(
        tmp_path / "out", dtype=getattr(torch, dtype), trust_remote_code=False
    )
    there = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == there[name].dtype, name
        assert tensor.equal(there[name]), name

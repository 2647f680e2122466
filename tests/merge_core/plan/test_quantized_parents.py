"""What a config says of quantization is true of the weights, or is not written."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from merge_core.errors import CheckpointError
from merge_core.parents.weight_files import SINGLE
from tests.merge_core.conftest import change

RECIPE = """
merge_method: linear
models:
  - {model: base, parameters: {weight: 1}}
  - {model: one, parameters: {weight: 1}}
"""
SLICED = "merge_method: passthrough\nslices: [{sources: [{model: base, layer_range: [0, 3]}]}]"
BYTES = {"quant_method": "bitsandbytes", "load_in_4bit": True}
UP = "model.layers.0.mlp.up_proj.weight"


def saying(root, entry, key="quantization_config"):
    for name in ("base", "one"):
        file = root / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {key: entry}))
    return root


@pytest.mark.parametrize("text", [RECIPE, SLICED], ids=["whole", "sliced"])
@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_entry_that_plain_weights_have_kept_is_not_written(
    planned, own_family, tmp_path, text, key
):
    made = planned(text, root=saying(own_family(), BYTES, key))
    digest = made.build()[0]
    assert made.write(tmp_path / "out") == digest
    assert key not in json.loads((tmp_path / "out" / "config.json").read_text())
    _, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True, trust_remote_code=False
    )
    assert not info["missing_keys"]


@pytest.mark.parametrize("said", [True, False], ids=["config says so", "config does not"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_quantized_weights_are_refused(planned, own_family, said, dtype):
    root = saying(own_family(), BYTES) if said else own_family()
    for name in ("base", "one"):
        shape = load_file(root / name / SINGLE)[UP].shape
        change(root / name, **{UP.replace(".", "__"): torch.ones(shape, dtype=dtype)})
    with pytest.raises(CheckpointError, match=rf"base: {UP} is quantized"):
        planned(RECIPE, root=root)


def test_weights_under_the_names_of_a_quantizer_are_refused_as_that(planned, own_family):
    root = saying(own_family(), {"quant_method": "gptq", "bits": 4})
    for name in ("base", "one"):
        packed = {"model__layers__0__mlp__up_proj__qweight": torch.ones(2, 24, dtype=torch.int32)}
        change(root / name, **{UP.replace(".", "__"): None}, **packed)
    with pytest.raises(
        CheckpointError, match=rf"base: {UP.removesuffix('.weight')}\.qweight is quantized \(GPTQ"
    ):
        planned(RECIPE, root=root)

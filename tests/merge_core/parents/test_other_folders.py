"""Folders that are no models to merge: each is named for what it is, with what to do."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_core.errors import CheckpointError
from merge_core.parents.checkpoint import Checkpoint
from merge_core.parents.companions import companions
from merge_core.parents.locate import locate
from merge_core.parents.weight_files import INDEX, PICKLE, SINGLE, tensor_infos
from merge_core.tokenizer.parent_tokenizer import open_tokenizer

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
FETCH = "is a pointer of git-lfs, the file itself was not fetched; run git lfs pull in its folder"
UP = "model.layers.0.mlp.up_proj"
MADE_FROM = "; name the model that it was made from, or save it dequantized"


@pytest.fixture
def model(family, tmp_path):
    shutil.copytree(family("llama-tied") / "one", tmp_path / "model")
    return tmp_path / "model"


def opened(folder):
    return Checkpoint(locate(str(folder), [folder]))


def stored(folder, config=None, remove=(), **tensors):
    """Change what a folder stores; keys follow the projection's name."""
    found = load_file(folder / SINGLE)
    for end in remove:
        del found[UP + end]
    found |= {f"{UP}.{end}": x.clone() for end, x in tensors.items()}
    save_file(found, folder / SINGLE, metadata={"format": "pt"})
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | (config or {})))


@pytest.mark.parametrize("name", [SINGLE, PICKLE, INDEX, "config.json"])
def test_a_pointer_of_git_lfs_is_told_from_a_damaged_file(model, name):
    if name in (PICKLE, INDEX):
        (model / SINGLE).unlink()
    (model / name).write_text(POINTER)
    with pytest.raises(CheckpointError, match=f"{name}: {FETCH}"):
        opened(model)
    if name != "config.json":
        with pytest.raises(CheckpointError, match=f"{name}: {FETCH}"):
            tensor_infos(model)


def test_a_shard_that_is_a_pointer_is_named(model):
    (model / SINGLE).rename(model / "model-00001-of-00002.safetensors")
    (model / "model-00002-of-00002.safetensors").write_text(POINTER)
    files = {UP: "model-00001-of-00002.safetensors", "x": "model-00002-of-00002.safetensors"}
    (model / INDEX).write_text(json.dumps({"weight_map": files}))
    with pytest.raises(CheckpointError, match=f"model-00002-of-00002.safetensors: {FETCH}"):
        opened(model)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "generation_config.json"])
def test_a_pointer_is_not_copied_for_a_file_that_goes_with_the_model(model, name):
    (model / name).write_text(POINTER)
    with pytest.raises(CheckpointError, match=f"{name}: {FETCH}"):
        companions(model)
    if name.startswith("tokenizer"):
        with pytest.raises(CheckpointError, match=f"{name}: {FETCH}"):
            open_tokenizer(model)


WORDS = torch.ones(2, 24, dtype=torch.int32)
QUANTIZED = {
    "GPTQ": (
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        [".weight"],
        {"qweight": WORDS, "qzeros": WORDS, "g_idx": WORDS[0]},
        f"{UP}.qweight is quantized (GPTQ, 4 bits)",
    ),
    "GPTQ whose config does not say so": (
        {},
        [".weight"],
        {"qweight": WORDS, "g_idx": WORDS[0]},
        f"{UP}.qweight is quantized (GPTQ)",
    ),
    "AWQ": (
        {"quantization_config": {"quant_method": "awq", "bits": 4}},
        [".weight"],
        {"qweight": WORDS, "qzeros": WORDS},
        f"{UP}.qweight is quantized (AWQ, 4 bits)",
    ),
    "FP8": (
        {},
        [],
        {"weight": torch.ones(24, 16).to(torch.float8_e4m3fn), "weight_scale_inv": torch.ones(1)},
        f"{UP}.weight is F8_E4M3, a quantized type (FP8)",
    ),
    "MLX": (
        {"quantization": {"bits": 4}},
        [],
        {"weight": torch.ones(24, 2, dtype=torch.uint32), "biases": torch.ones(24, 1)},
        f"{UP}.weight is U32, a quantized type (MLX)",
    ),
}


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_weights_are_named_with_their_kind_when_headers_are_read(model, name):
    config, remove, tensors, said = QUANTIZED[name]
    stored(model, config, remove, **tensors)
    for read in (opened, tensor_infos):
        with pytest.raises(CheckpointError) as caught:
            read(model)
        assert str(caught.value).startswith(f"{model}: {said}{MADE_FROM}")


@pytest.mark.parametrize("file", ["config.json", "quantize_config.json"])
def test_quantized_weights_under_a_name_of_their_own_are_told_by_their_config(model, file):
    said = {"quantization_config": {"bits": 4}} if file == "config.json" else {"bits": 4}
    (model / file).write_text(json.dumps(said))
    (model / SINGLE).rename(model / "gptq_model-4bit-128g.safetensors")
    with pytest.raises(CheckpointError) as caught:
        opened(model)
    assert str(caught.value).startswith(f"{model}: is quantized (4 bits){MADE_FROM}")


INNER = {
    "folder of a training": (
        ["checkpoint-500/model.safetensors", "checkpoint-1000/model.safetensors"],
        "has no weights, the folder checkpoint-1000 in it has; name that one (2 such folders)",
    ),
    "folder of an adapter's training": (
        ["checkpoint-10/adapter_model.safetensors"],
        "has no weights, the folder checkpoint-10 in it has; name that one",
    ),
    "shards of FSDP": (
        ["pytorch_model_fsdp_0/__0_0.distcp"],
        "has shards of FSDP; make weights of them with accelerate merge-weights",
    ),
    "shards of DeepSpeed": (
        ["zero_to_fp32.py", "global_step9/zero_pp_rank_0.pt"],
        "has shards of DeepSpeed; make weights of them with the zero_to_fp32.py in it",
    ),
}


@pytest.mark.parametrize("name", INNER)
def test_a_folder_without_weights_is_told_by_what_its_folders_have(tmp_path, name):
    files, said = INNER[name]
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("x")
    with pytest.raises(CheckpointError) as caught:
        opened(tmp_path)
    assert str(caught.value) == f"{tmp_path}: {said}"


def test_a_folder_of_the_hubs_cache_is_named_by_its_model(tmp_path):
    folder = tmp_path / "models--org--name-7b"
    (folder / "snapshots").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"is a folder of the hub's cache; .*: org/name-7b$"):
        opened(folder)


def test_headers_are_looked_at_without_a_heavy_library(model):
    stored(model, {}, [".weight"], qweight=WORDS)
    code = (
        "import sys; from pathlib import Path; from merge_core.parents import weight_files\n"
        "try: weight_files.tensor_infos(Path(sys.argv[1]))\n"
        "except Exception as error: print(error)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    run = [sys.executable, "-c", code, str(model)]
    assert "is quantized" in subprocess.run(run, check=True, capture_output=True, text=True).stdout

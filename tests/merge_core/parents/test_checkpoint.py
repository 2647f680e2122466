import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from merge_core.errors import CheckpointError
from merge_core.parents.checkpoint import Checkpoint
from merge_core.parents.weight_files import (
    INDEX,
    PICKLE,
    PICKLE_INDEX,
    SINGLE,
    TensorInfo,
    tensor_shapes,
)
from tests.merge_core.places import at

A = {
    "b.weight": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "a.weight": torch.tensor([0.5, -0.0], dtype=torch.float32),
    "step": torch.tensor(7),
}


def folder_with(folder, shards, index=None):
    """A model folder of these files (name -> tensors); ``index`` maps tensors to files."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    for file, tensors in shards.items():
        save_file(tensors, folder / file)
    if index is not None:
        (folder / INDEX).write_text(json.dumps({"weight_map": index}))
    return folder


def opened(folder):
    return Checkpoint(at(folder))


@pytest.fixture
def single(tmp_path):
    return folder_with(tmp_path / "single", {SINGLE: A})


@pytest.fixture
def sharded(tmp_path):
    first, second = {"b.weight": A["b.weight"]}, {n: A[n] for n in ("a.weight", "step")}
    index = {"b.weight": "1.safetensors", "a.weight": "2.safetensors", "step": "2.safetensors"}
    return folder_with(
        tmp_path / "sharded", {"1.safetensors": first, "2.safetensors": second}, index
    )


def test_headers_are_read_without_tensors(single):
    parent = opened(single)
    assert parent.tensors == {
        "a.weight": TensorInfo(SINGLE, (2,), "F32"),
        "b.weight": TensorInfo(SINGLE, (2, 3), "BF16"),
        "step": TensorInfo(SINGLE, (), "I64"),
    }
    assert parent.config == {"model_type": "llama"}
    assert [*tensor_shapes(single)] == ["a.weight", "b.weight", "step"]


def test_tensors_come_as_stored_from_one_file_and_from_shards(single, sharded):
    for folder in (single, sharded):
        parent = opened(folder)
        for name, tensor in A.items():
            assert parent.tensor(name).dtype == tensor.dtype
            assert parent.tensor(name).equal(tensor)


def test_digest_is_the_same_in_shards_and_is_the_sha256_of_names_types_shapes_and_bytes(
    single, sharded
):
    sha = hashlib.sha256()
    # By hand: float32 0.5 and -0, bfloat16 0 to 5, int64 7, little-endian.
    sha.update(b"a.weight\x1ftorch.float32\x1f(2,)\x1f" + bytes.fromhex("0000003f00000080"))
    sixteen = bytes.fromhex("0000803f004040408040a040")
    sha.update(b"b.weight\x1ftorch.bfloat16\x1f(2, 3)\x1f" + sixteen)
    sha.update(b"step\x1ftorch.int64\x1f()\x1f" + (7).to_bytes(8, "little"))
    assert opened(single).digest == sha.hexdigest()
    assert opened(sharded).digest == sha.hexdigest()


def test_digest_changes_with_a_single_value(single, tmp_path):
    other = {**A, "a.weight": torch.tensor([0.5, 0.0])}
    assert opened(folder_with(tmp_path / "o", {SINGLE: other})).digest != (opened(single).digest)


def test_missing_shard_is_named(sharded):
    (sharded / "2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"sharded/2\.safetensors: the shard is missing"):
        opened(sharded)


@pytest.mark.parametrize("size", [0, 4, 20, 200, -1])
def test_truncated_file_is_refused_when_opened(single, size):
    data = (single / SINGLE).read_bytes()
    (single / SINGLE).write_bytes(data[:size])
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: damaged or no safetensors file"
    ):
        opened(single)


def test_file_of_another_format_is_refused(single):
    torch.save(A, single / SINGLE)
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: damaged or no safetensors file"
    ):
        opened(single)


def change_map(folder, drop=(), **more):
    index = json.loads((folder / INDEX).read_text())
    placed = {k: v for k, v in index["weight_map"].items() if k not in drop} | more
    (folder / INDEX).write_text(json.dumps({**index, "weight_map": placed}))


def test_tensor_that_the_index_lists_and_no_file_has_is_left_out_with_the_reason(sharded):
    change_map(sharded, c="1.safetensors", step="1.safetensors")
    parent = opened(sharded)
    assert parent.left_out == {"c": f"{INDEX} lists it, no file has it"}
    assert parent.tensors.keys() == A.keys()  # also what lies in another shard, as transformers


def test_tensor_that_the_index_does_not_list_is_left_out_with_the_reason(sharded):
    change_map(sharded, drop=["step"])
    parent = opened(sharded)
    assert parent.left_out == {"step": f"2.safetensors has it, {INDEX} does not list it"}
    assert parent.tensors.keys() == A.keys() - {"step"}
    assert tensor_shapes(sharded).keys() == parent.tensors.keys()


def test_single_file_goes_before_an_index_as_in_transformers(sharded):
    save_file({"x": torch.zeros(1)}, sharded / SINGLE)
    assert opened(sharded).tensors.keys() == {"x"}


def outside(sharded):
    """A shard beside the folder: the names that lead to it, and what they are called."""
    file = sharded.parent / "other.safetensors"
    save_file({"x": torch.zeros(1)}, file)
    (sharded / "link.safetensors").symlink_to(file)
    (sharded / "up").symlink_to(sharded.parent)
    (sharded / "circle").symlink_to("circle")
    return file


@pytest.mark.parametrize(
    "name",
    ["../other.safetensors", "{}", "link.safetensors", "up/other.safetensors", "circle", "a\0b"],
)
def test_index_that_leads_out_of_its_folder_is_refused(sharded, name):
    name = name.format(outside(sharded))
    change_map(sharded, x=name)
    with pytest.raises(CheckpointError, match=r"index\.json: .* leads out of the folder; put the"):
        opened(sharded)


def test_links_of_the_hubs_cache_lead_to_its_blobs(sharded, tmp_path):
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "c0ffee", tmp_path / "hub" / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    for i, file in enumerate(sorted(sharded.iterdir())):
        file.rename(blobs / f"{i:064x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{i:064x}")
    assert opened(snapshot).tensors.keys() == A.keys()


@pytest.mark.parametrize("name", ["1.safetensors", SINGLE, INDEX, PICKLE])
def test_pipe_in_place_of_a_file_is_refused_and_not_waited_for(sharded, name):
    if name == PICKLE:
        (sharded / INDEX).unlink()
    (sharded / name).unlink(missing_ok=True)
    os.mkfifo(sharded / name)
    with pytest.raises(CheckpointError, match=rf"{name}: expected a file, got something else"):
        opened(sharded)


@pytest.mark.parametrize("name", ["/dev/zero", 7, None, "x" * 300, ""])
def test_index_whose_files_are_no_files_is_refused(sharded, name):
    change_map(sharded, x=name)
    with pytest.raises(
        CheckpointError, match=r"index\.json: |the shard cannot be read|expected a f"
    ):
        opened(sharded)


def said(name, **fields):
    return {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **fields}}


@pytest.mark.parametrize(
    "header",
    [
        b"\x00" * 8,
        (2**62).to_bytes(8, "little"),  # a header longer than the file
        said("a", shape=[2**40, 2**40]),
        said("a", shape=[-2]),
        said("a", shape=[2.0]),
        said("a", shape="2"),
        said("a", shape=[1] * 65),
        said("a", dtype=4),
        said("a", data_offsets=[8, 16]),  # a hole
        said("a", data_offsets=[0, 2**70]),
        said("a", data_offsets=[8, 0]),
        said("a", data_offsets=None),
        said("a") | said("b"),  # one on the other
        said("a") | said("b", data_offsets=[4, 12]),
        said("a") | {"b": 1},
        [],
        said("a") | said("b", data_offsets=[8, 16]),  # beyond the file's end
    ],
)
@pytest.mark.parametrize("read", [opened, tensor_shapes])
def test_header_that_does_not_fit_its_file_is_refused(single, header, read):
    if not isinstance(header, bytes):
        text = json.dumps(header).encode()
        header = len(text).to_bytes(8, "little") + text
    (single / SINGLE).write_bytes(header + bytes(8))
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: damaged or no safetensors file"
    ):
        read(single)


def test_empty_tensors_have_a_place_wherever_the_header_names_them(single):
    tensors = {"z": torch.zeros(0, 3), "a": torch.ones(2), "y": torch.zeros(0)}
    save_file(tensors, single / SINGLE)
    assert tensor_shapes(single) == {"a": (2,), "y": (0,), "z": (0, 3)}
    assert opened(single).tensor("z").shape == (0, 3)


def test_tensor_in_two_shards_is_refused(tmp_path):
    shards = {"1.safetensors": A, "2.safetensors": {"step": A["step"]}}
    index = dict.fromkeys(("a.weight", "b.weight"), "1.safetensors") | {"step": "2.safetensors"}
    with pytest.raises(CheckpointError, match="step stands in two shards"):
        opened(folder_with(tmp_path / "twice", shards, index))


@pytest.mark.parametrize("text", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_index_without_a_map_is_refused(sharded, text):
    (sharded / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match=r"index\.json: has no weight_map"):
        opened(sharded)


def pickled(folder, data, file=PICKLE):
    (folder / SINGLE).unlink(missing_ok=True)
    torch.save(data, folder / file)
    return folder


def test_pickle_of_plain_weights_is_read_as_they_are(single):
    parent = opened(pickled(single, {**A, "t": A["b.weight"].T}))
    assert parent.tensors["b.weight"] == TensorInfo(PICKLE, (2, 3), "BF16")
    assert parent.tensors["step"] == TensorInfo(PICKLE, (), "I64")
    assert all(parent.tensor(name).equal(tensor) for name, tensor in A.items())
    assert parent.tensor("t").is_contiguous()
    assert [*tensor_shapes(single)] == ["a.weight", "b.weight", "step", "t"]


def test_sharded_pickles_are_read_through_their_index(single):
    pickled(single, {"a.weight": A["a.weight"]}, "1.bin")
    pickled(single, {"step": A["step"]}, "2.bin")
    placed = {"a.weight": "1.bin", "step": "2.bin"}
    (single / PICKLE_INDEX).write_text(json.dumps({"weight_map": placed}))
    assert opened(single).tensors.keys() == placed.keys()


class Payload:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


@pytest.mark.parametrize("data", [{**A, "x": Payload()}, Payload()])
def test_pickle_that_is_not_plain_weights_is_refused_and_never_run(single, data):
    pickled(single, data)
    with pytest.raises(
        CheckpointError, match=r"pytorch_model\.bin: not a pickle of plain weights: .*; save it as"
    ):
        opened(single)


@pytest.mark.parametrize("data", [[A["step"]], {"model": A}, {}, 7])
def test_pickle_without_named_tensors_is_refused(single, data):
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: holds no named tensors but a"):
        opened(pickled(single, data))


@pytest.mark.parametrize("zip_file", [True, False])
def test_pickles_of_old_torch_are_read_and_what_is_no_tensor_is_left_out(single, zip_file):
    (single / SINGLE).unlink()
    data = {**A, "version": 3, "args": {"lr": 0.1}, "huge": torch.zeros(1).expand(2**40)}
    torch.save(data, single / PICKLE, _use_new_zipfile_serialization=zip_file)
    parent = opened(single)
    assert all(parent.tensor(name).equal(tensor) for name, tensor in A.items())
    assert parent.tensors.keys() == A.keys()
    kinds = {"version": "int", "args": "dict", "huge": "Tensor"}
    assert parent.left_out == {name: f"no plain tensor but a {x}" for name, x in kinds.items()}


def test_truncated_pickle_is_refused(single):
    path = pickled(single, A) / PICKLE
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: not a pickle of plain weights"):
        opened(single)


def test_safetensors_go_before_pickles(single):
    torch.save({"x": torch.zeros(1)}, single / PICKLE)
    assert opened(single).tensors.keys() == A.keys()


def test_folder_without_weights_is_refused(single):
    (single / SINGLE).unlink()
    with pytest.raises(CheckpointError, match=rf"no {SINGLE}, no {INDEX}, and no {PICKLE}$"):
        opened(single)


OTHER_FOLDERS = {
    (
        "adapter_config.json",
        "adapter_model.safetensors",
    ): r"LoRA adapter, no model; .*: BASE\+here ",
    (
        "config.json",
        *(f"model-0000{i}-of-00009.safetensors" for i in range(1, 6)),
    ): r"has model-00001-of-00009\.safetensors, .* and 2 more, but no model\.safetensors\.index",
    ("config.json", "pytorch_model-00001-of-00002.bin"): r"but no pytorch_model\.bin\.index\.json",
    ("params.json", "consolidated.00.pth"): r"has consolidated\.00\.pth, no format that is read",
}


@pytest.mark.parametrize("files", OTHER_FOLDERS)
def test_folder_of_something_else_is_told_by_what_it_is(tmp_path, files):
    (tmp_path / "here").mkdir()
    for name in files:
        (tmp_path / "here" / name).write_text("{}")
    with pytest.raises(CheckpointError, match=rf"/here: .*{OTHER_FOLDERS[files]}"):
        opened(tmp_path / "here")


def test_adapter_in_place_of_a_model_is_named_with_its_base(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    with pytest.raises(
        CheckpointError, match=rf"name it after its base: owner/base\+{tmp_path.name}"
    ):
        opened(tmp_path)


@pytest.mark.parametrize("text", [None, "", "{", "\xff"])
def test_config_that_cannot_be_read_is_refused(single, text):
    (single / "config.json").unlink()
    if text is not None:
        (single / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"single/config\.json: cannot be read: "):
        opened(single)


def test_config_that_is_no_object_is_refused(single):
    (single / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json: expected a JSON object"):
        opened(single)


def test_type_that_cannot_be_merged_is_refused(tmp_path):
    tensors = {"w": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    with pytest.raises(CheckpointError, match=r"f8: w is F8_E4M3, a quantized type; name the"):
        opened(folder_with(tmp_path / "f8", {SINGLE: tensors}))


@pytest.mark.slow
def test_length_in_a_pickle_takes_no_memory_that_the_file_does_not_fill(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"X" + (2**30 + 2**29).to_bytes(4, "little") + b"name")
    code = f"""
import resource
import torch
from pathlib import Path
from merge_core.errors import CheckpointError
from merge_core.parents.weight_files import open_file

pages = int(Path("/proc/self/statm").read_text().split()[0])
room = pages * resource.getpagesize() + 2**29
resource.setrlimit(resource.RLIMIT_AS, (room, room))
try:
    open_file(Path({str(tmp_path / "w.bin")!r}))
except CheckpointError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "not a pickle of plain weights" in run.stdout, run.stderr
    assert "Memory" not in run.stdout

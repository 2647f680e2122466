import hashlib
import json

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


@pytest.mark.parametrize("change", [{"c.weight": "1.safetensors"}, {"step": "1.safetensors"}])
def test_index_that_names_a_tensor_where_it_is_not_is_refused(sharded, change):
    ((name, file),) = change.items()
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"] |= change
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=rf"names {name} in {file}, where it is not"):
        opened(sharded)


def test_tensor_that_the_index_does_not_list_is_refused(sharded):
    index = json.loads((sharded / INDEX).read_text())
    del index["weight_map"]["step"]
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="does not list step, which is there"):
        opened(sharded)


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


@pytest.mark.parametrize("data", [[A["step"]], {"model": A}])
def test_pickle_of_other_things_than_named_tensors_is_refused(single, data):
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: holds other things than named"):
        opened(pickled(single, data))


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
    with pytest.raises(CheckpointError, match=r"model\.safetensors: w is F8_E4M3, not mergeable"):
        opened(folder_with(tmp_path / "f8", {SINGLE: tensors}))

"""Many model classes, none of them known by name: merged live and on disk, sliced, and reloaded."""

import pytest
import torch
import transformers
from safetensors.torch import load_file

from merge_core.architecture import layers
from merge_core.parents.weight_files import SINGLE
from tests.merge_core.recipes import LINEAR, TIES

DECODERS = (
    *("llama-tied", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2"),
    *("gpt-neox", "olmo2", "mixtral"),
)
KINDS = (*DECODERS, "bert", "t5")
STACKED = """
merge_method: passthrough
slices:
  - sources: [{model: one, layer_range: [0, 2]}]
  - sources: [{model: two, layer_range: [1, 3]}]
  - sources: [{model: one, layer_range: [2, 3]}]
"""


def loaded(folder, made):
    """The model that transformers makes of a folder, and what it found missing there."""
    (name,) = made.plan.config["architectures"]
    return getattr(transformers, name).from_pretrained(folder, output_loading_info=True)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [LINEAR, TIES], ids=["linear", "ties"])
@pytest.mark.parametrize("kind", KINDS)
def test_candidate_is_to_the_bit_the_model_that_is_exported(planned, tmp_path, kind, recipe):
    made = planned(f"dtype: bfloat16\n{recipe}", kind)
    digest, model = made.build()
    assert made.write(tmp_path / "out") == digest
    exported, info = loaded(tmp_path / "out", made)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_same_state(model, exported)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.slow
def test_stacked_layers_are_those_of_the_parents_and_load_in_transformers(
    planned, family, tmp_path, kind
):
    made = planned(STACKED, kind)
    digest, model = made.build()
    assert made.write(tmp_path / "out") == digest
    exported, info = loaded(tmp_path / "out", made)
    assert not info["missing_keys"]
    assert_same_state(model, exported)
    written = load_file(tmp_path / "out" / SINGLE)
    parents = {name: load_file(family(kind) / name / SINGLE) for name in ("one", "two")}
    stack = layers.of(parents["one"]).stack
    picked = [("one", 0), ("one", 1), ("two", 1), ("two", 2), ("one", 2)]
    for out, (name, index) in enumerate(picked):
        there = {n: x for n, x in parents[name].items() if n.startswith(f"{stack}.{index}.")}
        assert there
        for tensor, value in there.items():
            assert written[tensor.replace(f"{stack}.{index}.", f"{stack}.{out}.")].equal(value)


def assert_same_state(a, b):
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype
        assert left[name].equal(right[name]), name
    buffers = dict(b.named_buffers())
    for name, buffer in a.named_buffers():
        assert buffer.dtype == buffers[name].dtype, name
        assert buffer.equal(buffers[name]), name
    ids = torch.tensor([[5, 9, 20, 11, 7]])
    given = {"decoder_input_ids": ids} if a.config.is_encoder_decoder else {}
    with torch.no_grad():
        assert a(input_ids=ids, **given).logits.equal(b(input_ids=ids, **given).logits)

"""What is written is what its own config makes; else nothing is begun and no tensor is read."""

import json

import pytest

from merge_core.errors import CheckpointError, ShapeError
from merge_core.parents.checkpoint import Checkpoint
from tests.merge_core import tiny_classes
from tests.merge_core.conftest import change

LINEAR = "merge_method: linear\nmodels: [{model: base, parameters: {weight: 1}}]"
STACKED = """
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, %d]}]
  - sources: [{model: a, layer_range: [%d, 3]}]
"""


@pytest.fixture(autouse=True)
def no_tensor_is_read(monkeypatch):
    monkeypatch.setattr(Checkpoint, "tensor", lambda *_: pytest.fail("a tensor was read"))


def spoilt(own_family, changes, **tensors):
    root = own_family("llama")
    for name in ("base", "one"):
        file = root / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        change(root / name, **tensors)
    return root


@pytest.mark.parametrize(
    ("changes", "tensor"),
    [
        ({"num_hidden_layers": 5}, "model.layers.4."),
        ({"attention_bias": True}, "model.layers.0.self_attn.q_proj.bias"),
        ({}, "model.norm.weight"),
    ],
)
def test_config_that_asks_for_more_than_the_files_hold_is_refused(
    planned, own_family, changes, tensor
):
    tensors = {} if changes else {"model__norm__weight": None}
    root = spoilt(own_family, changes, **tensors)
    with pytest.raises(CheckpointError, match=tensor):
        planned(LINEAR, root=root)


@pytest.mark.parametrize("changes", [{"intermediate_size": 32}, {"vocab_size": 50}])
def test_shapes_that_the_config_does_not_make_are_refused(planned, own_family, changes):
    root = spoilt(own_family, changes)
    with pytest.raises(
        ShapeError, match=r"config, that of base, makes it \(\d+, 16\), the parents"
    ):
        planned(LINEAR, root=root)


def test_layers_stand_only_where_the_config_counts_their_kind(planned, tmp_path):
    # layer 0 is dense, the others have experts: the config counts the dense ones from the front
    tiny_classes.save("deepseek-v2", tmp_path / "a", 0)
    made = planned(STACKED % (2, 1), root=tmp_path)
    assert made.plan.config["num_hidden_layers"] == 4
    with pytest.raises(CheckpointError, match=r"^model.layers.2.*: the parent's layer 0 has "):
        planned(STACKED % (2, 0), root=tmp_path)

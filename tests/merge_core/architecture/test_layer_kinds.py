"""A layer that is stacked anew stays the kind of layer that it was, or is refused."""

import json

import pytest

from merge_core.architecture import model_class
from merge_core.errors import CheckpointError
from tests.merge_core import tiny_classes

STACKED = """
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, %d]}]
  - sources: [{model: a, layer_range: [%d, 4]}]
"""


def made_of(planned, tmp_path, kind, until, start, drop=(), **changes):
    """Stack the layers ``[0, until)`` and ``[start, 4)``; return parent's and result's config."""
    tiny_classes.save(kind, tmp_path / "a", 0, num_hidden_layers=4)
    file = tmp_path / "a" / "config.json"
    config = {k: v for k, v in json.loads(file.read_text()).items() if k not in drop} | changes
    file.write_text(json.dumps(config))
    made = planned(STACKED % (until, start), root=tmp_path)
    digest = made.build()[0]
    assert made.write(tmp_path / "out") == digest
    return config, json.loads((tmp_path / "out" / "config.json").read_text())


def effective(config, name):
    return getattr(model_class.config_of(config), name)


@pytest.mark.parametrize(
    ("kind", "drop", "changes", "name"),
    [
        ("gemma3", ("layer_types",), {"sliding_window_pattern": 4}, "layer_types"),
        (
            "qwen2",
            ("layer_types",),
            {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2},
            "layer_types",
        ),
        (
            "smollm3",
            ("no_rope_layers", "layer_types"),
            {"no_rope_layer_interval": 2},
            "no_rope_layers",
        ),
        ("cohere2", ("layer_types",), {"sliding_window_pattern": 2}, "layer_types"),
    ],
)
def test_lists_that_a_class_makes_up_by_the_number_follow_their_layers(
    planned, tmp_path, kind, drop, changes, name
):
    before, after = made_of(planned, tmp_path, kind, 3, 2, drop, **changes)
    assert name not in before
    kinds = effective(before, name)
    assert len({*kinds}) > 1, "all layers are of one kind"
    assert effective(after, name) == [kinds[i] for i in (0, 1, 2, 2, 3)]


def test_lists_of_layer_numbers_are_numbered_anew(planned, tmp_path):
    before, after = made_of(planned, tmp_path, "bamba", 3, 1, attn_layer_indices=[1, 3])
    kinds = effective(before, "layers_block_type")
    assert effective(after, "layers_block_type") == [kinds[i] for i in (0, 1, 2, 1, 2, 3)]


def test_layer_that_no_list_can_keep_as_it_was_is_refused(planned, tmp_path):
    with pytest.raises(CheckpointError, match=r"^model\.layers\.\d: the parent's layer \d has "):
        made_of(planned, tmp_path, "deepseek-v2", 2, 0)


def test_same_layers_in_their_order_leave_lists_to_the_class(planned, tmp_path):
    before, after = made_of(
        planned, tmp_path, "gemma3", 4, 4, ("layer_types",), sliding_window_pattern=4
    )
    assert "layer_types" not in before
    assert "layer_types" not in after

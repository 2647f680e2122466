import pytest

from merge_core.architecture import layers
from merge_core.architecture.layers import Layers
from merge_core.errors import CheckpointError

LLAMA = [
    "model.embed_tokens.weight",
    *[
        f"model.layers.{i}.{part}"
        for i in range(4)
        for part in ("mlp.up_proj.weight", "norm.weight")
    ],
    "model.norm.weight",
    "lm_head.weight",
]


def test_stack_is_found_in_the_names():
    assert layers.of(LLAMA) == Layers("model.layers", 4)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("model.layers.0.mlp.up_proj.weight", 0),
        ("model.layers.12.mlp.experts.3.w1.weight", 12),
        ("model.layers.7.attn.q8.weight", 7),
        ("model.norm.weight", None),
        ("model.layers2.7.weight", None),
        ("other.layers.7.weight", None),
        ("lm_head.weight", None),
        ("model.layers.3", None),
    ],
)
def test_layer_of_a_tensor_is_the_first_number_of_its_name(name, index):
    assert Layers("model.layers", 16).index(name) == index


def test_names_that_begin_with_the_number_are_a_stack_too():
    stack = layers.of(["0.weight", "1.weight"])
    assert stack.count == 2
    assert stack.index("1.weight") == 1


def test_model_without_layers_has_none():
    assert layers.of(["embed.weight", "head.weight"]) == Layers(None, 0)


TWO = [
    "model.shared.weight",
    "model.encoder.layers.0.w",
    "model.encoder.norm",
    "model.decoder.embed",
    *[f"model.decoder.layers.{i}.w" for i in range(2)],
    "lm_head.weight",
]


def test_several_stacks_are_refused_where_one_is_asked_for():
    with pytest.raises(
        CheckpointError,
        match=r"several layer stacks \(model.decoder.layers, model.enc",
    ):
        layers.of(TWO)


def test_several_stacks_make_modules_named_by_the_word_in_which_they_differ():
    found = {module.name: module for module in layers.modules_of(TWO, layers.stacks(TWO))}
    assert list(found) == ["shared", "encoder", "decoder", "lm_head"]
    assert found["encoder"].layers == Layers("model.encoder.layers", 1)
    assert found["encoder"].after == ("model.encoder.norm",)
    assert found["decoder"].layers == Layers("model.decoder.layers", 2)
    assert found["decoder"].before == ("model.decoder.embed",)
    assert found["lm_head"].before == ("lm_head.weight",)
    assert found["lm_head"].layers.count == 0


def test_one_stack_makes_the_module_default_with_what_is_ahead_and_behind():
    (module,) = layers.modules_of(LLAMA, layers.stacks(LLAMA))
    assert module.name == "default"
    assert module.before == ("model.embed_tokens.weight",)
    assert module.after == ("model.norm.weight", "lm_head.weight")


def test_of_several_stacks_in_one_part_the_one_with_most_tensors_is_sliced():
    names = [f"visual.blocks.{i}.{part}" for i in range(2) for part in "abcd"]
    names += [*(f"visual.mergers.{i}.a" for i in range(3)), "text.layers.0.a"]
    found = {module.name: module for module in layers.modules_of(names, layers.stacks(names))}
    assert found["visual"].layers == Layers("visual.blocks", 2)
    assert found["visual"].after == tuple(names[8:11])


def test_stack_inside_another_is_refused():
    with pytest.raises(CheckpointError, match=r"one layer stack stands inside another: h, h.x"):
        layers.modules_of(["h.0.w", "h.x.0.w"], [Layers("h", 1), Layers("h.x", 1)])


@pytest.mark.parametrize(
    "names",
    [["merger.mlp.0.weight", "merger.mlp.2.weight"], ["h.1.w", "h.3.w"], ["h.0.a", "h.1.b"]],
)
def test_numbers_with_gaps_and_numbers_of_unlike_members_are_parts_of_names(names):
    assert layers.of(names) == Layers(None, 0)

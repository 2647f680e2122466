"""Layers stacked anew: which tensors go where, with which numbers, and what is refused."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from merge_core import consent
from merge_core.errors import CheckpointError, ParameterError, ShapeError
from merge_core.parents.weight_files import SINGLE
from tests.merge_core.conftest import change

UP = "model.layers.{}.mlp.up_proj.weight"
EMBEDDING, NORM = "model.embed_tokens.weight", "model.norm.weight"
STACKED = """
merge_method: passthrough
slices:
  - sources: [{model: one, layer_range: [0, 3]}]
  - sources: [{model: two, layer_range: [1, 4]}]
"""
MIXED = """
merge_method: task_arithmetic
base_model: base
slices:
  - sources:
      - {model: base, layer_range: [0, 2]}
      - {model: one, layer_range: [0, 2], parameters: {weight: [1, 2]}}
      - {model: two, layer_range: [2, 4]}
    parameters: {weight: 5, lambda: [0.1, 0.2]}
  - sources:
      - {model: base, layer_range: [3, 4]}
      - {model: three, layer_range: [3, 4]}
parameters: {weight: 7, lambda: 0.3}
"""


def steps_of(made):
    return {step.tensor: step for step in made.plan.steps}


def places(step):
    return [(operand.parent, operand.tensor) for operand in step.operands]


def test_layers_follow_each_other_and_keep_what_they_were(planned):
    steps = steps_of(planned(STACKED))
    found = [places(steps[UP.format(i)]) for i in range(6)]
    expected = [("one", 0), ("one", 1), ("one", 2), ("two", 1), ("two", 2), ("two", 3)]
    assert found == [[(name, UP.format(i))] for name, i in expected]
    assert UP.format(6) not in steps


def test_embedding_comes_from_the_first_slice_and_the_norm_from_the_last(planned):
    steps = steps_of(planned(STACKED))
    assert places(steps[EMBEDDING]) == [("one", EMBEDDING)]
    assert places(steps[NORM]) == [("two", NORM)]


def test_last_slice_of_no_layers_chooses_what_stands_behind_them(planned):
    text = f"{STACKED}  - sources: [{{model: three, layer_range: [0, 0]}}]\n"
    steps = steps_of(planned(text))
    assert places(steps[NORM]) == [("three", NORM)]
    assert UP.format(6) not in steps


def test_config_says_how_many_layers_there_are(planned, tmp_path):
    made = planned(STACKED)
    made.write(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 6


def test_lists_of_the_config_with_one_entry_per_layer_follow_their_layers(planned):
    made = planned(STACKED, "gemma3")
    # By hand: the layers of a parent are sliding, full, sliding, full.
    words = ["sliding", "full", "sliding", "full", "sliding", "full"]
    assert made.plan.config["layer_types"] == [f"{word}_attention" for word in words]
    turned = planned(
        """
merge_method: passthrough
slices:
  - sources: [{model: one, layer_range: [1, 4]}]
  - sources: [{model: one, layer_range: [0, 1]}]
""",
        "gemma3",
    )
    words = ["full", "sliding", "full", "sliding"]
    assert turned.plan.config["layer_types"] == [f"{word}_attention" for word in words]


def test_slices_over_all_layers_in_order_leave_the_config_alone(planned):
    text = "merge_method: passthrough\nslices: [{sources: [{model: one, layer_range: [0, 4]}]}]"
    made = planned(text)
    assert made.plan.config == made.parents["one"].config
    assert (
        made.build()[0] == planned("merge_method: passthrough\nmodels: [{model: one}]").build()[0]
    )


def test_own_settings_go_before_those_of_the_slice_and_these_before_those_of_the_recipe(planned):
    steps = steps_of(planned(MIXED))
    weights = [[values["weight"] for values in steps[UP.format(i)].values] for i in range(3)]
    assert weights == [[1, 5], [2, 5], [7]]
    assert [steps[UP.format(i)].shared["lambda"] for i in range(3)] == [0.1, 0.2, 0.3]


def test_gradients_start_anew_in_every_slice_and_stand_at_the_end_in_a_slice_of_one(planned):
    text = STACKED + "parameters: {scale: [1, 2]}\n"
    steps = steps_of(planned(text))
    scales = [steps[UP.format(i)].values[0]["scale"] for i in range(6)]
    assert scales == [1, 1.5, 2, 1, 1.5, 2]
    one = "merge_method: passthrough\nslices: [{sources: [{model: one, layer_range: [1, 2]}]}]\n"
    steps = steps_of(planned(one + "parameters: {scale: [1, 2]}"))
    assert [steps[name].values[0]["scale"] for name in (UP.format(0), NORM)] == [2, 1]


def test_filters_see_the_parents_layer_for_its_own_settings_and_the_results_for_shared_ones(
    planned,
):
    text = MIXED.replace("parameters: {weight: [1, 2]}", "parameters: {weight: 1}").replace(
        "{model: two, layer_range: [2, 4]}",
        "{model: two, layer_range: [2, 4], parameters: {weight: [{filter: .3., value: 9}, "
        "{value: 8}]}}",
    )
    text = text.replace("lambda: [0.1, 0.2]", "lambda: [{filter: .1., value: 0.9}, {value: 0.8}]")
    steps = steps_of(planned(text))
    assert [steps[UP.format(i)].values[1]["weight"] for i in range(2)] == [8, 9]
    assert [steps[UP.format(i)].shared["lambda"] for i in range(2)] == [0.8, 0.9]


def test_base_is_measured_from_its_own_layers(planned):
    steps = steps_of(planned(MIXED))
    assert [steps[UP.format(i)].base.tensor for i in range(3)] == [UP.format(i) for i in (0, 1, 3)]


def test_base_that_is_not_listed_takes_the_layers_of_the_others(planned):
    text = MIXED.replace("      - {model: base, layer_range: [3, 4]}\n", "")
    assert planned(text).build()[0] == planned(MIXED).build()[0]


def test_base_of_a_slice_takes_the_place_of_the_recipes(planned):
    text = MIXED.replace("      - {model: base, layer_range: [3, 4]}\n", "").replace(
        "      - {model: three, layer_range: [3, 4]}\n",
        "      - {model: three, layer_range: [3, 4]}\n    base_model: two\n",
    )
    step = steps_of(planned(text))[UP.format(2)]
    assert (step.base.parent, step.base.tensor) == ("two", UP.format(3))


def test_base_without_layers_of_its_own_is_refused(planned):
    text = MIXED.replace("      - {model: base, layer_range: [0, 2]}\n", "")
    with pytest.raises(ParameterError, match=r"^slices: the base 'base' is not among the sources "):
        planned(text)


def test_layer_that_is_not_there_is_refused_before_a_tensor_is_read(planned):
    with pytest.raises(
        CheckpointError, match=r"^model.layers: two has 4 layers, and the recipe asks for number 4"
    ):
        planned(STACKED.replace("[1, 4]", "[1, 5]"))


def test_masks_of_a_repeated_layer_are_its_own(planned):
    text = """
merge_method: dare_linear
base_model: base
slices:
  - sources: [{model: base, layer_range: [1, 2]}, {model: one, layer_range: [1, 2]}]
  - sources: [{model: base, layer_range: [1, 2]}, {model: one, layer_range: [1, 2]}]
parameters: {weight: 1, density: 0.5}
"""
    steps = steps_of(planned(text))
    assert steps[UP.format(0)].keys != steps[UP.format(1)].keys


def test_tensors_of_other_layers_are_dropped_with_the_reason(planned):
    dropped = planned(STACKED).plan.dropped
    assert dropped[f"one: {UP.format(3)}"] == "its layer is in no slice"
    assert dropped[f"two: {UP.format(0)}"] == "its layer is in no slice"
    assert dropped[f"two: {EMBEDDING}"] == "other models' slices give it"
    assert UP.format(0) not in dropped


def test_parents_whose_layers_have_other_names_are_told_so(planned, family, own_family):
    root = own_family()
    shutil.copytree(family("gpt2") / "two", root / "gpt2")
    told = r"^model.layers: gpt2 has none of one's layers; they must share one"
    with consent.allowed(consent.CRIMES), pytest.raises(CheckpointError, match=told):
        planned(STACKED.replace("model: two", "model: gpt2"), root=root)


def test_layers_of_other_shapes_are_refused(planned, own_family):
    root = own_family()
    change(
        root / "two",
        model__layers__1__mlp__up_proj__weight=load_file(root / "two" / SINGLE)[NORM]
        .reshape(4, 4)
        .clone(),
    )
    text = """
merge_method: slerp
base_model: one
slices:
  - sources: [{model: one, layer_range: [0, 1]}, {model: two, layer_range: [1, 2]}]
parameters: {t: 0.5}
"""
    with pytest.raises(ShapeError, match=r"up_proj.weight: one is \(24, 16\), two is \(4, 4\)"):
        planned(text, root=root)


MODULES = """
merge_method: linear
modules:
  shared: {models: [{model: one}, {model: two}]}
  encoder:
    slices:
      - sources: [{model: one, layer_range: [0, 1]}, {model: two, layer_range: [0, 1]}]
      - sources: [{model: one, layer_range: [2, 3]}, {model: two, layer_range: [1, 2]}]
    parameters: {weight: 2}
  decoder: {models: [{model: one, parameters: {weight: [0, 3]}}, {model: two}]}
parameters: {weight: 1}
"""


def test_modules_are_sliced_by_themselves(planned, tmp_path):
    made = planned(MODULES, "t5")
    steps = steps_of(made)
    query = "{}.block.{}.layer.0.SelfAttention.q.weight"
    assert places(steps[query.format("encoder", 1)]) == [
        ("one", query.format("encoder", 2)),
        ("two", query.format("encoder", 1)),
    ]
    assert [v["weight"] for v in steps[query.format("encoder", 1)].values] == [2, 2]
    assert [v["weight"] for v in steps[query.format("decoder", 3)].values] == [3, 1]
    assert (made.plan.config["num_layers"], made.plan.config["num_decoder_layers"]) == (2, 4)
    assert made.write(tmp_path / "out") == made.build()[0]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (("  shared:", "  shraed:"), "modules.shraed: one has no such module; it has shared, enc"),
        (
            ("  shared: {models: [{model: one}, {model: two}]}\n", ""),
            "modules.shared: one has this",
        ),
    ],
)
def test_modules_that_do_not_fit_the_model_are_refused(planned, change, rule):
    with pytest.raises(CheckpointError, match=f"^{rule}"):
        planned(MODULES.replace(*change), "t5")


def test_slices_of_a_model_with_several_modules_are_refused(planned):
    with pytest.raises(
        CheckpointError, match=r"^slices: one has several modules \(shared, encoder"
    ):
        planned(STACKED, "t5")


def test_models_with_one_stack_are_one_module_default(planned):
    text = "merge_method: passthrough\nmodules: {default: {models: [{model: one}]}}"
    assert (
        planned(text).build()[0]
        == planned("merge_method: passthrough\nmodels: [{model: one}]").build()[0]
    )

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_core.errors import CheckpointError, ParameterError, ShapeError
from merge_core.numerics.bernoulli import key_for
from merge_core.parents.checkpoint import Checkpoint
from merge_core.parents.weight_files import SINGLE
from tests.merge_core.conftest import change
from tests.merge_core.recipes import DARE_TIES, LINEAR, RECIPES, SLERP, TIES

ATTENTION = "model.layers.{}.self_attn.q_proj.weight"
MLP = "model.layers.{}.mlp.up_proj.weight"
HEAD, EMBEDDING, NORM = "lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"


def steps_of(made):
    return {step.tensor: step for step in made.plan.steps}


def parents_of(made):
    """The base and the other models, the same in every step."""
    (found,) = {
        (step.base and step.base.parent, tuple(x.parent for x in step.operands))
        for step in made.plan.steps
    }
    return found


def test_every_stored_tensor_has_one_step_in_the_order_of_names(planned, family):
    made = planned(TIES)
    stored = load_file(family() / "base" / SINGLE)
    assert [step.tensor for step in made.plan.steps] == sorted(stored)
    assert all(step.shape == tuple(stored[step.tensor].shape) for step in made.plan.steps)
    assert made.plan.dropped == {}


def test_no_tensor_is_read(planned, monkeypatch):
    monkeypatch.setattr(Checkpoint, "tensor", lambda *_: pytest.fail("a tensor was read"))
    planned(TIES)


def test_base_is_no_source_where_the_method_has_a_base_and_one_where_it_has_none(planned):
    assert parents_of(planned(TIES)) == (
        "base",
        ("one", "two", "three"),
    )
    assert parents_of(planned(SLERP)) == ("base", ("one",))
    assert parents_of(planned(LINEAR)) == (
        None,
        ("base", "one", "two"),
    )


@pytest.mark.parametrize(
    ("recipe", "folder"), [(TIES, "base"), (LINEAR, "base"), (f"base_model: two{LINEAR}", "two")]
)
def test_config_comes_from_the_base_or_else_from_the_first_model(planned, recipe, folder):
    assert planned(recipe).plan.config_from == folder


def test_parameters_are_resolved_for_every_tensor(planned):
    # TIES: one's density runs from 0.3 to 0.9 over four layers; two's weight in the MLPs from
    # 0.2 to 1, else 0.3. Outside the layers gradients take their first value.
    steps = steps_of(planned(TIES))
    density = {name: step.values[0]["density"] for name, step in steps.items()}
    weight = {name: step.values[1]["weight"] for name, step in steps.items()}
    ramp = [density[MLP.format(i)] for i in range(4)]
    assert ramp == pytest.approx([0.3, 0.5, 0.7, 0.9])
    assert [density[name] for name in (EMBEDDING, NORM)] == [0.3, 0.3]
    assert [weight[MLP.format(i)] for i in (0, 3)] == [0.2, 1.0]
    assert weight[ATTENTION.format(1)] == weight[NORM] == 0.3


def test_own_parameter_of_a_model_goes_before_the_one_for_all_models(planned):
    text = TIES.replace("lambda: 1.1}", "density: 0.2, weight: 7}")
    for step in planned(text.replace(", weight: 0.4}", "}")).plan.steps:
        assert [values["density"] for values in step.values[1:]] == [0.5, 0.75]
        assert [step.values[i]["weight"] for i in (0, 2)] == [0.5, 7]


def test_shared_parameters_come_with_their_defaults(planned):
    for step in planned(TIES).plan.steps:
        assert step.shared == {
            "normalize": True,
            "rescale": False,
            "lambda": 1.1,
            "int8_mask": False,
            "consensus": "sum",
            "trim": "tensor",
        }


def test_keys_name_seed_tensor_and_contents_of_the_parent(planned):
    made = planned(DARE_TIES)
    for step in made.plan.steps:
        assert step.keys == tuple(
            key_for(12, step.tensor, made.parents[name].digest) for name in ("one", "two", "three")
        )


def test_keys_do_not_depend_on_where_a_parent_is_or_what_it_is_called(planned, own_family):
    root = own_family()
    (root / "one").rename(root / "uno")
    moved = planned(DARE_TIES.replace("model: one", "model: uno"), root=root)
    assert [s.keys for s in moved.plan.steps] == [s.keys for s in planned(DARE_TIES).plan.steps]


def test_parents_are_not_hashed_where_nothing_is_drawn(planned, monkeypatch):
    hashes = "merge_core.parents.protocol.content_of"
    monkeypatch.setattr(hashes, lambda _: pytest.fail("hashed"))
    assert {step.keys for step in planned(TIES).plan.steps} == {(0, 0, 0)}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("kind", ["llama", "gpt-neox", "pythia"])
def test_every_method_is_planned_on_every_architecture(planned, name, kind):
    made = planned(RECIPES[name], kind)
    assert len(made.plan.steps) + len(made.plan.dropped) == len(made.parents["one"].tensors)


def test_what_the_class_does_not_load_is_dropped_with_the_reason(planned):
    dropped = planned(TIES, "pythia").plan.dropped
    assert len(dropped) == 9
    assert set(dropped.values()) == {"not loaded by the model class"}


@pytest.mark.parametrize("holder", ["base", "one"])
def test_tied_head_that_one_parent_stores_is_dropped_with_the_reason(planned, own_family, holder):
    root = own_family()
    head = load_file(root / holder / SINGLE)[EMBEDDING].clone()
    change(root / holder, lm_head__weight=head)
    made = planned(TIES, root=root)
    assert made.plan.dropped == {HEAD: f"tied to {EMBEDDING}"}
    assert HEAD not in steps_of(made)


def test_shapes_that_differ_are_refused(planned, own_family):
    root = own_family()
    change(root / "two", model__norm__weight=torch.zeros(17))
    with pytest.raises(ShapeError, match=rf"^{NORM}: base is \(16,\), two is \(17,\); the parents"):
        planned(TIES, root=root)


@pytest.mark.parametrize("lack", ["base", "two"])
def test_tensor_of_the_class_that_is_missing_is_refused_in_the_base_and_in_an_expert(
    planned, own_family, lack
):
    root = own_family()
    change(root / lack, model__norm__weight=None)
    with pytest.raises(
        CheckpointError, match=rf"{lack}: lacks {NORM}, which its config asks for \(1 such tensors"
    ):
        planned(TIES, root=root)


@pytest.mark.parametrize("alone", [True, False])
def test_tensors_that_the_class_does_not_have_are_dropped_with_the_reason(
    planned, own_family, alone
):
    root = own_family()
    for name in ("three",) if alone else ("base", "one", "two", "three"):
        change(root / name, v_head__summary__weight=torch.zeros(2))
    made = planned(TIES, root=root)
    assert made.plan.dropped["v_head.summary.weight"] == "not in the model class"
    assert "v_head.summary.weight" not in steps_of(made)
    assert made.plan.lost() == (
        "v_head.summary.weight: left out: not in the model class (1 such, in `dropped` of "
        "mergetune.json)"
    )


def test_tied_heads_and_old_buffers_are_left_out_without_a_word(planned):
    made = planned(TIES, "pythia")
    assert made.plan.dropped
    assert made.plan.lost() is None


def test_float_in_one_parent_and_whole_number_in_another_are_refused(planned, own_family):
    root = own_family()
    change(root / "one", model__norm__weight=torch.zeros(16, dtype=torch.int64))
    with pytest.raises(CheckpointError, match=rf"^{NORM}: base is F32, one is I64"):
        planned(TIES, root=root)


def test_whole_numbers_in_all_parents_are_copied(planned, own_family):
    root = own_family()
    for name in ("base", "one", "two", "three"):
        change(root / name, model__norm__weight=torch.arange(16))
    step = steps_of(planned(TIES, root=root))[NORM]
    assert (step.copied, step.values, step.shared, step.keys) == (True, (), {}, ())


def test_tensor_without_a_value_is_refused(planned):
    text = LINEAR.replace("{weight: 0.2}", "{weight: {filter: mlp, value: 1}}")
    with pytest.raises(
        ParameterError, match=r"^model.embed_tokens.weight: no value of 'weight' holds for it and"
    ):
        planned(text)


@pytest.mark.parametrize(
    ("settings", "stored", "written"),
    [
        ("", "float32", "float32"),
        ("", "bfloat16", "bfloat16"),
        ("dtype: float16", "bfloat16", "float16"),
        ("out_dtype: float16", "float32", "float16"),
        ("dtype: float32\nout_dtype: bfloat16", "float32", "bfloat16"),
    ],
)
def test_type_is_out_dtype_or_dtype_or_that_of_the_parents(planned, settings, stored, written):
    assert planned(f"{settings}{SLERP}", dtype=stored).plan.dtype == written


def test_type_of_what_is_not_merged_does_not_count(planned, family, tmp_path):
    root = Path(shutil.copytree(family(dtype="bfloat16"), tmp_path / "buffers"))
    change(root / "one", model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4))
    assert planned(SLERP, root=root).plan.dtype == "bfloat16"


def test_type_of_what_the_class_keeps_in_float32_does_not_count(planned, family, tmp_path):
    root = Path(shutil.copytree(family("t5", dtype="bfloat16"), tmp_path / "t5"))
    for name in ("base", "one"):
        wo = {n: x.float() for n, x in load_file(root / name / SINGLE).items() if ".wo." in n}
        assert len(wo) > 1
        change(root / name, **{n.replace(".", "__"): x for n, x in wo.items()})
    assert planned(SLERP, root=root).plan.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("stored", "written"), [(torch.float16, "float32"), (torch.float64, "float32")]
)
def test_parents_of_different_types_are_written_in_float32(
    planned, family, tmp_path, stored, written
):
    root = Path(shutil.copytree(family(dtype="bfloat16"), tmp_path / "mixed"))
    tensors = {n: x.to(stored) for n, x in load_file(root / "one" / SINGLE).items()}
    save_file(tensors, root / "one" / SINGLE)
    assert planned(SLERP, root=root).plan.dtype == written

import dataclasses
import itertools
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from merge_core.api import merge
from merge_core.contract import Method
from merge_core.errors import CheckpointError, MethodError, NonFiniteError, ParameterError
from merge_core.merge.execute import Execution
from merge_core.methods.registry import METHODS, method
from merge_core.output import safetensors_writer
from merge_core.parents.weight_files import SINGLE
from tests.merge_core.conftest import change
from tests.merge_core.recipes import DARE_TIES, LINEAR, TASK_ARITHMETIC, TIES

NORM = "model.norm.weight"


def out_of(made, tensor=NORM):
    (step,) = (step for step in made.plan.steps if step.tensor == tensor)
    return Execution(made.plan).carry_out(step)


def test_result_is_that_of_the_formula(planned, family):
    # By hand from LINEAR: 0.2 base + 0.1 one + 1.0 two, over 1.3; the norm takes the first values.
    stored = {name: load_file(family() / name / SINGLE)[NORM] for name in ("base", "one", "two")}
    expected = (0.2 * stored["base"] + 0.1 * stored["one"] + 1.0 * stored["two"]) / 1.3
    torch.testing.assert_close(out_of(planned(LINEAR)), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_result_is_the_float32_result_rounded_once(planned, dtype):
    whole = out_of(planned(f"dtype: float32{TIES}", dtype="bfloat16"))
    rounded = out_of(planned(f"dtype: {dtype}{TIES}", dtype="bfloat16"))
    assert whole.dtype == torch.float32
    assert rounded.equal(whole.to(getattr(torch, dtype)))


@pytest.mark.parametrize("place", [0, 7, 15])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_value_that_is_not_finite_is_refused_with_tensor_method_and_parameters(
    planned, own_family, place, broken
):
    root = own_family()
    norm = torch.ones(16)
    norm[place] = broken
    change(root / "two", model__norm__weight=norm)
    made = planned(TASK_ARITHMETIC, root=root)
    with pytest.raises(
        NonFiniteError,
        match=rf"^{NORM}: the merge by 'task_arithmetic' is not finite in float32; .*'weight': 0.6",
    ):
        out_of(made)


def test_value_that_the_written_type_cannot_hold_is_refused(planned):
    text = LINEAR.replace("0.2", "2e6") + "parameters: {normalize: false}\n"
    assert float(out_of(planned(text)).abs().max()) > 65504
    with pytest.raises(NonFiniteError, match="is not finite in float16"):
        out_of(planned(f"dtype: float16{text}"))


def test_method_that_refuses_its_parameters_is_told_the_tensor(planned):
    text = LINEAR.replace("0.2", "-1.1")
    with pytest.raises(ParameterError, match=rf"^{NORM}: the weights of 'linear' sum to "):
        out_of(planned(text))


@pytest.mark.parametrize("numbers", [torch.arange(16), torch.arange(16) > 3])
def test_equal_whole_numbers_are_copied_in_their_own_type(planned, own_family, numbers):
    root = own_family()
    for name in ("base", "one", "two"):
        change(root / name, model__norm__weight=numbers)
    out = out_of(planned(LINEAR, root=root), NORM)
    assert out.dtype == numbers.dtype
    assert out.equal(numbers)


def test_whole_numbers_that_differ_are_refused(planned, own_family):
    root = own_family()
    for i, name in enumerate(("base", "one", "two")):
        change(root / name, model__norm__weight=torch.full((16,), i // 2))
    with pytest.raises(
        CheckpointError, match=rf"^{NORM}: the parents' whole-number tensors differ and cannot"
    ):
        out_of(planned(LINEAR, root=root), NORM)


def test_plugin_that_gives_another_shape_is_named_with_the_tensor_on_disk_and_live(
    planned, tmp_path, monkeypatch
):
    narrow = Method("narrow", (), "none", (1, None), "by hand", merge=lambda x: x.models[0][:1])
    monkeypatch.setitem(METHODS._added, "narrow", narrow)
    made = planned("{merge_method: narrow, models: [{model: one}, {model: two}]}")
    with pytest.raises(
        MethodError, match=r"^[\w.]+: merge method 'narrow' must give .*got float32"
    ):
        made.write(tmp_path / "out")
    with pytest.raises(
        MethodError, match=r"^[\w.]+: merge method 'narrow' must give .*got float32"
    ):
        made.build()
    assert not list(tmp_path.iterdir())


def test_step_alone_gives_the_bits_it_gives_in_a_full_run(planned):
    made = planned(DARE_TIES)
    full = {step.tensor: Execution(made.plan).carry_out(step) for step in made.plan.steps}
    again = planned(DARE_TIES)
    for step in reversed(again.plan.steps):
        alone = dataclasses.replace(again.plan, steps=(step,))
        assert Execution(alone).carry_out(step).equal(full[step.tensor])


def recipe_of(name, base, *models):
    """Return a recipe by a method: the same for the same places of the models in the list."""
    found = method(name)
    _, most = found.models
    listed = models[: 3 if most is None else most - (found.base != "none")]
    own = {p.name: 0.7 for p in found.params if p.scope == "model" and p.name == "weight"}
    entries = [
        {"model": model, "parameters": {key: x - i / 10 for key, x in own.items()}}
        for i, model in enumerate(listed)
    ]
    shared = {p.name: p.start for p in found.params if p.scope == "shared" and p.start is not None}
    recipe = {"merge_method": name, "base_model": base, "models": entries, "parameters": shared}
    if found.base == "none":
        entries.append({"model": base, "parameters": own})
        entries[:] = entries[-1:] if most == 1 else entries
    return yaml.safe_dump(recipe)


@pytest.mark.parametrize("name", METHODS.names())
@pytest.mark.slow
def test_names_of_the_folders_do_not_change_a_bit(planned, family, tmp_path, name):
    for new, old in {"z": "one", "y": "two", "x": "three", "w": "base"}.items():
        (tmp_path / new).symlink_to(family() / old)
    digest = planned(recipe_of(name, "base", "one", "two", "three")).build()[0]
    renamed = planned(recipe_of(name, "w", "z", "y", "x"), root=tmp_path)
    assert renamed.build()[0] == digest


@pytest.mark.parametrize("name", ["linear", "task_arithmetic", "ties", "della_linear"])
def test_recipe_of_an_export_merges_to_the_same_bytes_wherever_it_lies(family, tmp_path, name):
    """The references change from ``./z/one`` and absolute ones to ``../../z/one`` and so on."""
    here, there = tmp_path / "here", tmp_path / "over" / "there"
    for folder, model in {"z": "one", "m": "two", "a": "three", "k": "base"}.items():
        shutil.copytree(family() / model, here / folder / model)
    names = ["k/base", "./z/one", str(here / "m/two"), "../here/a/three"]
    (here / "r.yaml").write_text(recipe_of(name, *names))
    digest = merge(here / "r.yaml", here / "far/out")
    assert merge(here / "far/out/recipe.yaml", here / "again") == digest
    there.parent.mkdir()
    here.rename(there)
    assert merge(there / "again/recipe.yaml", tmp_path / "third") == digest


def test_sums_follow_the_order_of_the_recipe(planned):
    digests = {
        planned(recipe_of("linear", "base", *order)).build()[0]
        for order in itertools.permutations(["one", "two", "three"])
    }
    assert len(digests) > 1  # so what the tests above hold fixed does decide


def test_whole_numbers_that_differ_are_refused_before_a_file_is_begun(
    planned, own_family, tmp_path, monkeypatch
):
    root = own_family()
    for i, name in enumerate(("base", "one", "two")):
        change(root / name, model__norm__weight=torch.full((16,), i // 2))
    made = planned(LINEAR, root=root)
    monkeypatch.setattr(safetensors_writer, "_written", lambda *_: pytest.fail("a file was begun"))
    with pytest.raises(CheckpointError, match=rf"^{NORM}: the parents' whole-number tensors"):
        made.write(tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))

import json

import pytest
import torch
from safetensors.torch import load_file

from merge_core.errors import NonFiniteError
from merge_core.merge.execute import Execution
from merge_core.merge.nested import plan
from merge_core.output.live_model import Candidate
from merge_core.parents.weight_files import SINGLE
from tests.merge_core.conftest import change, read_recipe, weights_digest
from tests.merge_core.recipes import DARE_TIES, LINEAR, RECIPES, SLERP, TASK_ARITHMETIC, TIES

PROMPT = torch.tensor([[5, 9, 20, 11, 7]])
HEAD, EMBEDDING, NORM = "lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"


def loaded(folder):
    """The model that transformers loads, in the type that is stored."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def assert_same_model(a, b):
    """Same weights to the bit, in the same types, and the same outputs."""
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype
        assert left[name].view(torch.uint8).equal(right[name].view(torch.uint8)), name
    with torch.no_grad():
        assert a(PROMPT).logits.equal(b(PROMPT).logits)


def change_config(folder, file="config.json", **settings):
    path = folder / file
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(config | settings))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", RECIPES)
def test_candidate_is_to_the_bit_the_model_that_is_exported(planned, tmp_path, name, dtype):
    made = planned(f"dtype: {dtype}{RECIPES[name]}", dtype="bfloat16")
    digest, model = made.build()
    assert made.write(tmp_path / "out") == digest
    assert_same_model(model, loaded(tmp_path / "out"))


@pytest.mark.parametrize("name", ["linear", "dare_ties"])
@pytest.mark.parametrize("kind", ["llama", "gpt-neox", "pythia"])
def test_candidate_is_the_exported_model_on_other_architectures(planned, tmp_path, name, kind):
    made = planned(RECIPES[name], kind)
    digest, model = made.build()
    assert made.write(tmp_path / "out") == digest
    assert_same_model(model, loaded(tmp_path / "out"))


def test_digest_is_that_of_the_live_weights_under_their_stored_names(planned):
    digest, model = planned(TIES).build()
    weights = {n: x for n, x in model.state_dict().items() if n != HEAD}
    assert weights_digest(weights.items()) == digest


def test_weights_are_overwritten_in_place(planned):
    candidate = Candidate()
    candidate.build(planned(TIES).plan)
    model = candidate.model
    places = {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()}
    before = {name: p.clone() for name, p in model.named_parameters()}
    candidate.build(planned(TASK_ARITHMETIC).plan)
    assert candidate.model is model
    assert {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()} == places
    assert not any(p.equal(before[name]) for name, p in model.named_parameters())


@pytest.mark.slow
def test_build_does_not_depend_on_what_was_built_before(planned):
    candidate = Candidate()
    digests = [candidate.build(planned(text).plan) for text in (TIES, DARE_TIES, SLERP, TIES)]
    assert digests[0] == digests[3] == planned(TIES).build()[0]
    assert len(set(digests)) == 3
    assert_same_model(candidate.model, planned(TIES).build()[1])


def test_model_is_in_evaluation_mode_and_parents_stay_as_they_were(planned):
    made = planned(TIES)
    before = {name: parent.tensor(NORM).clone() for name, parent in made.parents.items()}
    _, model = made.build()
    with torch.no_grad():
        model.model.norm.weight.fill_(0)
    assert not model.training
    assert all(made.parents[name].tensor(NORM).equal(x) for name, x in before.items())


def test_tied_weights_stay_tied(planned):
    _, model = planned(TIES).build()
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_model_is_not_to_be_had_before_the_first_build(planned):
    with pytest.raises(AssertionError, match="build first"):
        _ = Candidate().model


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_broken_parent_is_refused_by_tensor_and_the_next_build_is_right(
    planned, own_family, broken
):
    root = own_family()
    change(root / "two", model__norm__weight=torch.tensor([1.0] * 15 + [broken]))
    candidate = Candidate()
    with pytest.raises(NonFiniteError, match=rf"^{NORM}: the merge by 'linear' is not finite"):
        candidate.build(planned(LINEAR, root=root).plan)
    assert candidate.build(planned(SLERP, root=root).plan) == planned(SLERP).build()[0]
    assert_same_model(candidate.model, planned(SLERP).build()[1])


def test_overflow_of_float16_is_refused_and_the_next_build_is_right(planned):
    candidate = Candidate()
    large = planned(f"dtype: float16{TASK_ARITHMETIC}".replace("0.25", "3.0e+6")).plan
    with pytest.raises(NonFiniteError, match="'task_arithmetic' is not finite in float16"):
        candidate.build(large)
    usual = planned(f"dtype: float16{TASK_ARITHMETIC}")
    assert candidate.build(usual.plan) == usual.build()[0]


@pytest.mark.slow
def test_type_may_change_from_one_build_to_the_next(planned):
    candidate = Candidate()
    for dtype in ("float32", "bfloat16", "float32"):
        made = planned(f"dtype: {dtype}{TIES}")
        assert candidate.build(made.plan) == made.build()[0]
        assert candidate.model.dtype == getattr(torch, dtype)


ALONE = "merge_method: linear\nmodels: [{{model: {}, parameters: {{weight: 1}}}}]\n"


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("config.json", {"rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}}),
        ("config.json", {"rms_norm_eps": 0.1}),
        ("generation_config.json", {"repetition_penalty": 1.5}),
    ],
)
def test_config_is_that_of_the_parent_it_comes_from_not_of_the_first_build(
    planned, own_family, tmp_path, file, settings
):
    root = own_family()
    change_config(root / "two", file, **settings)
    first, second = (planned(ALONE.format(name), root=root) for name in ("one", "two"))
    candidate = Candidate()
    candidate.build(first.plan)
    candidate.build(second.plan)
    second.write(tmp_path / "out")
    exported = loaded(tmp_path / "out")
    assert_same_model(candidate.model, exported)
    penalty = candidate.model.generation_config.repetition_penalty
    assert penalty == exported.generation_config.repetition_penalty


def test_configs_that_differ_only_in_words_do_not_make_a_new_model(planned, own_family):
    root = own_family()
    change_config(root / "two", transformers_version="4.0.0", dtype="float16", architectures=["X"])
    first, second = (planned(ALONE.format(name), root=root) for name in ("one", "two"))
    candidate = Candidate()
    candidate.build(first.plan)
    model = candidate.model
    candidate.build(second.plan)
    assert candidate.model is model


def test_tensor_that_the_class_does_not_have_is_left_out_live_and_on_disk(
    planned, own_family, tmp_path
):
    root = own_family()
    change(root / "one", v_head__summary__weight=torch.zeros(2))
    made = planned(SLERP, root=root)
    assert made.plan.dropped["v_head.summary.weight"] == "not in the model class"
    assert made.build()[0] == made.write(tmp_path / "out")
    assert "v_head.summary.weight" not in load_file(tmp_path / "out" / SINGLE)


def counted(monkeypatch):
    """Names of the tensors that are merged from now on."""
    made = []
    carry_out = Execution.carry_out

    def count(self, step, out=None):
        made.append(step.tensor)
        return carry_out(self, step, out)

    monkeypatch.setattr(Execution, "carry_out", count)
    return made


@pytest.mark.slow
def test_only_tensors_whose_numbers_changed_are_merged_again(planned, monkeypatch):
    candidate, usual = Candidate(), planned(TIES)
    candidate.build(usual.plan)
    made = counted(monkeypatch)
    text = TIES.replace("[{filter: mlp,", "[{filter: .2.mlp, value: 0.9}, {filter: mlp,")
    digest = candidate.build(plan(read_recipe(text), usual.parents))
    assert sorted(made) == [f"model.layers.2.mlp.{x}_proj.weight" for x in ("down", "gate", "up")]
    assert digest == planned(text).build()[0]
    assert_same_model(candidate.model, planned(text).build()[1])


def test_tensors_trimmed_together_are_left_alone_until_their_density_changes(planned, monkeypatch):
    text = TIES.replace("[0.3, 0.9]", "0.5").replace("{normalize", "{trim: global, normalize")
    candidate, usual = Candidate(), planned(text)
    candidate.build(usual.plan)
    made, known = counted(monkeypatch), candidate.known.used
    one = text.replace("[{filter: mlp,", "[{filter: .2.mlp, value: 0.9}, {filter: mlp,")
    found = candidate.build(plan(read_recipe(one), usual.parents))
    assert len(made) == 3
    assert candidate.known.used == known
    assert found == planned(one).build()[0]
    other = one.replace("density: 0.75", "density: 0.7")
    assert candidate.build(plan(read_recipe(other), usual.parents)) == planned(other).build()[0]
    assert {step.tensor for step in usual.plan.steps} <= set(made)


def test_same_recipe_again_merges_nothing(planned, monkeypatch):
    candidate = Candidate()
    first = candidate.build(planned(DARE_TIES).plan)
    made = counted(monkeypatch)
    made_again = planned(DARE_TIES)
    again = Candidate()
    again.build(made_again.plan)
    made.clear()
    assert again.build(made_again.plan) == first
    assert made == []


def test_touched_candidate_is_merged_whole(planned, monkeypatch):
    made_plan = planned(TIES).plan
    candidate = Candidate()
    digest = candidate.build(made_plan)
    made = counted(monkeypatch)
    candidate.touch()
    assert candidate.build(made_plan) == digest
    assert len(made) == len(made_plan.steps)


def test_tensor_that_failed_is_merged_again_by_the_next_build(planned):
    candidate, usual = Candidate(), planned(f"dtype: float16{TASK_ARITHMETIC}")
    digest = candidate.build(usual.plan)
    broken = f"dtype: float16{TASK_ARITHMETIC}".replace("weight: 0.25", "weight: 3.0e+6")
    with pytest.raises(NonFiniteError, match="not finite in float16"):
        candidate.build(plan(read_recipe(broken), usual.parents))
    assert candidate.build(usual.plan) == digest
    assert_same_model(candidate.model, usual.build()[1])


@pytest.mark.slow
def test_what_is_known_of_parents_is_not_taken_for_others_of_the_same_name(planned, own_family):
    root = own_family()
    candidate = Candidate()
    candidate.build(planned(TIES).plan)
    change(root / "one", model__norm__weight=torch.linspace(-1, 1, 16))
    other = planned(TIES, root=root)
    assert candidate.build(other.plan) == other.build()[0]


@pytest.mark.slow
def test_second_build_on_the_same_parents_takes_its_thresholds_from_memory(planned):
    candidate = Candidate()
    candidate.build(planned(TIES).plan)
    made = planned(TIES)
    candidate.build(made.plan)
    first = candidate.known.used
    candidate.touch()
    candidate.build(made.plan)
    assert candidate.known.used == first > 0


@pytest.mark.parametrize(
    ("method", "change", "again"),
    [
        ("iso_c", ("lambda: 1.1", "lambda: 0.7"), False),
        ("iso_c", ("weight: 0.6", "weight: 0.5"), True),
        ("tsv_m", ("weight: 0.6", "weight: 0.5"), False),
        ("tsv_m", ("lambda: 1.1", "lambda: 1.1, rank_share: 0.5"), True),
    ],
)
def test_matrices_are_decomposed_again_only_where_they_must_be(
    planned, monkeypatch, method, change, again
):
    text = f"""
merge_method: {method}
base_model: base
models:
  - {{model: one, parameters: {{weight: 0.6}}}}
  - {{model: two, parameters: {{weight: 0.9}}}}
parameters: {{lambda: 1.1}}
"""
    candidate, usual = Candidate(), planned(text)
    candidate.build(usual.plan)
    kept, calls = candidate.known.used, []
    decompose = torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda *a, **k: calls.append(1) or decompose(*a, **k))
    other = text.replace(*change)
    digest = candidate.build(plan(read_recipe(other), usual.parents))
    assert bool(calls) is again
    assert candidate.known.used == kept
    assert digest == planned(other).build()[0]

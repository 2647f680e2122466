from __future__ import annotations

import re
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from merge_core.errors import CheckpointError, ParameterError, ShapeError
from merge_core.merge.execute import Execution
from merge_core.merge.nested import plan
from merge_core.output.live_model import Candidate
from merge_core.output.tensor_stream import Stream
from merge_core.parents.weight_files import SINGLE
from merge_core.recipe import read as recipe_reader
from merge_core.recipe import yaml_document
from tests.merge_core.conftest import change
from tests.merge_core.mixture.mixtures import PROMPTS, SHARED, expert, mixture
from tests.merge_core.parents.adapters import train

LINEAR = {
    "merge_method": "linear",
    "models": [
        {"model": "base", "parameters": {"weight": [0.2, 0.8]}},
        {"model": "one", "parameters": {"weight": 0.5}},
    ],
}
TWO = [expert("one"), expert("two")]
DRAWN = {"gate_mode": "random"}


def tensors(made):
    """Return the tensors of a plan by their stored names."""
    execution = Execution(made.plan)
    return {step.tensor: execution.carry_out(step) for step in made.plan.steps}


def written(made, out):
    made.write(out)
    return load_file(out / SINGLE)


def dense(name, folder):
    return load_file(folder / name / SINGLE)


UP, DOWN = "model.layers.2.mlp.up_proj.weight", "model.layers.2.mlp.down_proj.weight"
EXPERT_UP = "model.layers.2.block_sparse_moe.experts.{}.w3.weight"
EXPERT_DOWN = "model.layers.2.block_sparse_moe.experts.{}.w2.weight"
ROUTER = "model.layers.2.block_sparse_moe.gate.weight"


def test_experts_are_the_models_mlps_and_all_else_is_the_bases(mixed, family):
    found, root = tensors(mixed(mixture(**DRAWN))), family("llama")
    for i, name in enumerate(("one", "two", "three")):
        assert found[EXPERT_UP.format(i)].equal(dense(name, root)[UP])
        assert found[EXPERT_DOWN.format(i)].equal(dense(name, root)[DOWN])
    base = dense("base", root)
    rest = [name for name in base if ".mlp." not in name]
    assert all(found[name].equal(base[name]) for name in rest)
    assert len(found) == len(rest) + 4 * (3 * 3 + 1)


def test_experts_are_references_to_the_files_until_something_is_done_to_them(mixed):
    made = mixed(mixture("one", expert("two", noise_scale=0.1), "three", **DRAWN))
    makers = {step.tensor: step.operands[0].parent for step in made.plan.steps}
    assert makers[EXPERT_UP.format(0)] == "one"
    assert makers["model.embed_tokens.weight"] == "base"
    assert made.plan.method.name == "passthrough"
    assert makers[EXPERT_UP.format(1)].startswith("(two with noise")


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("llama", {}),
        ("llama-tied", {}),
        ("qwen2", {"shared_experts": SHARED, "dense_layers": [1]}),
        ("qwen3", {"dense_layers": [0, 3]}),
        ("mistral", {"shared_experts": SHARED, "architecture": "qwen"}),
        ("olmo2", {"temperature": 0.5}),
    ],
)
def test_live_model_and_folder_loaded_fresh_are_the_same_to_the_last_bit(
    mixed, tmp_path, kind, keys
):
    from transformers import AutoModelForCausalLM

    made = mixed({**mixture(dtype="float32", **keys)}, kind)
    digest, live = made.build()
    assert made.write(tmp_path / "out") == digest
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ids = torch.arange(4, 44).reshape(2, 20)
    with torch.no_grad():
        assert live(ids).logits.equal(fresh(ids).logits)
    how = {"max_new_tokens": 8, "do_sample": False}
    assert live.generate(ids, **how).equal(fresh.generate(ids, **how))


def test_stream_gives_what_the_folder_has(mixed, tmp_path):
    made, taken = mixed(mixture(expert("one", noise_scale=0.1), "two")), {}
    digest = Stream().send(made.plan, lambda pairs: taken.update((n, x.clone()) for n, x in pairs))
    assert made.write(tmp_path / "out") == digest
    stored = load_file(tmp_path / "out" / SINGLE)
    assert stored.keys() == taken.keys()
    assert all(stored[name].equal(taken[name]) for name in stored)


def test_merged_attention_is_that_of_the_merge_alone(mixed, planned, tmp_path):
    moe = {"experts": TWO, **DRAWN}
    found = written(mixed({**LINEAR, "moe": moe}), tmp_path / "mixture")
    alone = written(planned(yaml.safe_dump(LINEAR), "llama"), tmp_path / "merge")
    rest = [name for name in alone if ".mlp." not in name]
    assert rest
    assert all(found[name].equal(alone[name]) for name in rest)


def test_dense_layers_keep_the_mlp_of_the_merge(mixed, planned, tmp_path):
    moe = {"experts": TWO, "dense_layers": [2], **DRAWN}
    found = written(mixed({**LINEAR, "moe": moe}, "qwen3"), tmp_path / "mixture")
    alone = written(planned(yaml.safe_dump(LINEAR), "qwen3"), tmp_path / "merge")
    assert found[UP].equal(alone[UP])
    assert "model.layers.2.mlp.gate.weight" not in found
    assert "model.layers.1.mlp.gate.weight" in found


def test_stacked_layers_take_experts_that_are_stacked_alike(mixed, family):
    ranges = [[0, 3], [1, 4]]
    text = ""
    for name in ("one", "two"):
        slices = [{"sources": [{"model": name, "layer_range": x}]} for x in ranges]
        document = {"name": f"deep-{name}", "merge_method": "passthrough", "slices": slices}
        text += yaml.safe_dump(document) + "---\n"
    slices = [{"sources": [{"model": "base", "layer_range": x}]} for x in ranges]
    experts = [
        {"source_model": f"deep-{name}", "positive_prompts": PROMPTS[name]}
        for name in ("one", "two")
    ]
    result = {"merge_method": "passthrough", "slices": slices, "moe": {"experts": experts}}
    found = tensors(mixed_text(mixed, text + yaml.safe_dump(result)))
    assert found["model.layers.4.block_sparse_moe.experts.1.w3.weight"].equal(
        dense("two", family("llama"))[UP]
    )
    assert found["model.layers.5.block_sparse_moe.gate.weight"].shape == (2, 16)


def test_scaled_inputs_of_a_stack_stay_and_prompts_do_not_go_with_them(mixed):
    source = {"model": "base", "layer_range": [0, 4]}
    slices = [{"sources": [source], "input_scale": 0.5}]
    stack = {"merge_method": "passthrough", "slices": slices}
    assert mixed({**stack, "moe": {"experts": TWO, **DRAWN}}).plan.input_scales == {0: 0.5}
    with pytest.raises(ParameterError, match="the slices have input_scale beside them"):
        mixed({**stack, "moe": {"experts": TWO}})


def mixed_text(mixed, text):
    """Return the plan of a recipe of several documents."""
    recipe = recipe_reader.of_documents(yaml_document.parse_all(text, "moe.yaml"))
    return mixed(recipe.plain())


def test_expert_may_be_a_merge_of_its_own(mixed, planned, tmp_path):
    soup = {**LINEAR, "name": "soup"}
    experts = [{"source_model": "soup"}, {"source_model": "two"}]
    data = {"base_model": "base", "experts": experts, **DRAWN, "documents": [soup]}
    found = written(mixed(data), tmp_path / "mixture")
    alone = written(planned(yaml.safe_dump(LINEAR), "llama"), tmp_path / "merge")
    assert found[EXPERT_UP.format(0)].equal(alone[UP])


def test_mixture_may_be_a_parent(mixed, tmp_path):
    one, other = (
        {**mixture(**DRAWN), "seed": seed, "name": name}
        for seed, name in ((0, "one-mixture"), (1, "other-mixture"))
    )
    models = [{"model": x["name"], "parameters": {"weight": 0.5}} for x in (one, other)]
    both = {"merge_method": "linear", "models": models, "documents": [one, other]}
    found = tensors(mixed(both))
    parts = [tensors(mixed({**x, "name": None}))[ROUTER] for x in (one, other)]
    assert not parts[0].equal(parts[1])
    assert torch.allclose(found[ROUTER], (parts[0] + parts[1]) / 2)


def test_expert_with_an_adapter_is_the_adapted_model(mixed, own_family):
    root = own_family("llama")
    train(root / "base", root / "tuned", target_modules=["up_proj", "q_proj"], r=4)
    made = mixed(mixture({"source_model": "base+tuned"}, "two", **DRAWN), root=root)
    found, adapted = tensors(made), made.parents["base+tuned"]
    assert found[EXPERT_UP.format(0)].equal(adapted.tensor(UP))
    assert not found[EXPERT_UP.format(0)].equal(dense("base", root)[UP])


def test_noise_is_normal_differs_by_expert_and_is_that_of_the_seed(mixed, family):
    noisy = expert("one", noise_scale=0.1)
    runs = [tensors(mixed(mixture(noisy, noisy, seed=seed, **DRAWN))) for seed in (1, 1, 2)]
    start = dense("one", family("llama"))[UP]
    first, second = ([run[EXPERT_UP.format(i)] - start for run in runs] for i in (0, 1))
    assert first[0].equal(first[1])
    assert not any(first[0].equal(x) for x in (first[2], second[0]))
    every = torch.cat([x.flatten() for x in (*first[1:], *second[1:])])
    assert abs(every.mean()) < 0.01
    assert abs(every.std() - 0.1) < 0.01


def test_residual_scale_is_on_what_the_mlp_gives_and_on_nothing_else(mixed, family):
    found = tensors(mixed(mixture(expert("one", residual_scale=0.5), "two", **DRAWN)))
    start = dense("one", family("llama"))
    assert found[EXPERT_DOWN.format(0)].equal(start[DOWN] * 0.5)
    assert found[EXPERT_UP.format(0)].equal(start[UP])


def test_head_is_written_out_for_a_class_that_vllm_does_not_tie(mixed, tmp_path):
    data = mixture(shared_experts=[{"source_model": "base"}], **DRAWN)
    made = mixed(data, "llama-tied")
    stored = written(made, tmp_path / "out")
    assert stored["lm_head.weight"].equal(stored["model.embed_tokens.weight"])
    assert made.plan.config["tie_word_embeddings"] is False
    assert "lm_head.weight" not in written(mixed(mixture(**DRAWN), "llama-tied"), tmp_path / "two")


def test_temperature_and_scales_are_on_the_routers_rows(mixed):
    plain = tensors(mixed(mixture()))[ROUTER]
    scaled = mixture("one", expert("two", gate_scale=3), "three", temperature=2)
    assert torch.allclose(
        tensors(mixed(scaled))[ROUTER], plain * torch.tensor([[0.5], [1.5], [0.5]])
    )


def test_type_is_that_of_the_recipe_or_of_all_models(mixed):
    assert mixed(mixture(**DRAWN)).plan.dtype == "float32"
    assert mixed(mixture(**DRAWN), dtype="bfloat16").plan.dtype == "bfloat16"
    assert mixed(mixture(dtype="float16", **DRAWN)).plan.dtype == "float16"


def test_recipe_beside_the_folder_makes_the_same_weights(mixed, tmp_path):
    from merge_core import api

    made = mixed(mixture(expert("one", noise_scale=0.1), "two"))
    digest = made.write(tmp_path / "out")
    assert api.merge(tmp_path / "out" / "recipe.yaml", tmp_path / "again") == digest


def test_card_names_experts_prompts_and_licences(mixed, own_family, tmp_path):
    root = own_family("llama")
    (root / "one" / "README.md").write_text("---\nlicense: mit\n---\n")
    made = mixed(mixture("one", expert("two", negative_prompts=["say `no`"])), root=root)
    made.write(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# A mixture of 2 experts, 2 for a token" in card
    assert "- Expert `one`; for `add 1+2`, `plus`\n" in card
    assert "- Expert `two`; for `sort bca`; not for `say 'no'`\n" in card
    assert "`one`, licence mit, SHA-256" in card
    assert "routers: `gate_mode: hidden`" in card


@pytest.mark.parametrize("inside", [False, True])
def test_filters_of_the_dense_part_are_looked_for_in_its_own_tensors(family, inside):
    from merge_core import api

    up = {"filter": "up_proj", "value": 0.3}
    weight = [up, {"filter": "q_prj", "value": 0.1}, {"value": 0.5}]
    models = [{"model": name, "parameters": {"weight": weight}} for name in ("base", "one")]
    moe = {"experts": TWO, **DRAWN}
    data = {"merge_method": "linear", "models": models, "moe": moe}
    if inside:
        first = {"model": "inner", "parameters": {"weight": 1}}
        both = {"merge_method": "linear", "models": [first]}
        data = {**both, "documents": [{**data, "name": "inner"}]}
    said = []
    api.planned(data, family("llama"), tell=said.append)
    assert [line.split(": ")[2] for line in said] == ["'q_prj' changes nothing"] * 2


def test_dense_part_is_the_same_object_for_candidates_that_differ_in_their_experts(mixed):
    first = mixed({**LINEAR, "moe": {"experts": TWO, **DRAWN}})
    parents = first.parents

    def rest(data):
        recipe = recipe_reader.parse(data, "", [])
        made = plan(recipe, parents)
        return next(parent for name, parent in made.parents.items() if name == "(dense part)")

    one = rest({**LINEAR, "moe": {"experts": TWO, **DRAWN, "temperature": 2}})
    two = rest({**LINEAR, "moe": {"experts": [*TWO, expert("base")], **DRAWN}})
    other = rest({**LINEAR, "merge_method": "karcher", "moe": {"experts": TWO, **DRAWN}})
    assert one is two
    assert other is not one


TIES = {
    "merge_method": "ties",
    "base_model": "base",
    "models": [{"model": x, "parameters": {"weight": 0.5, "density": 0.5}} for x in ("one", "two")],
}


def test_what_the_dense_merge_needs_of_its_parents_is_computed_once_for_all_candidates(mixed):
    candidate, kept, digests = Candidate(), [], []
    first = mixed({**TIES, "moe": {"experts": TWO, **DRAWN}})
    for scale in (1.0, 0.7):
        data = {**TIES, "parameters": {"lambda": scale}, "moe": {"experts": TWO, **DRAWN}}
        recipe = recipe_reader.parse(data, "", [])
        digests.append(candidate.build(plan(recipe, first.parents)))
        values = candidate.known._values.items()
        kept.append({name: one.value for name, one in values if name[0] != "made"})
        assert Candidate().build(plan(recipe, first.parents)) == digests[-1]
    assert digests[0] != digests[1]
    assert len(kept[0]) >= 2 * 4 * 4
    assert [name for name in kept[0] if kept[1][name] is not kept[0][name]] == []


def routers(made):
    return {
        step.tensor: made.plan.parents["(routers)"].tensor(step.tensor).contiguous()
        for step in made.plan.steps
        if step.operands[0].parent == "(routers)"
    }


@pytest.fixture
def trained(mixed, own_family):
    """A family with a file of routers, and a configuration that reads it."""
    root = own_family("llama")
    found = routers(mixed(mixture(), root=root))
    save_file({name: x + 1 for name, x in found.items()}, root / "routers.safetensors")
    return root, mixture(gate_mode="trained", gates="routers.safetensors"), found


def test_fused_experts_are_the_models_matrices_below_each_other_and_made_once(mixed, family):
    noisy = expert("two", noise_scale=0.1, residual_scale=0.5)
    keys = {"architecture": "granite", "shared_experts": [{"source_model": "three"}], **DRAWN}
    first = mixed(mixture("one", noisy, **keys))
    found, plain = tensors(first), tensors(mixed(mixture("one", noisy, **DRAWN)))
    start, root = "model.layers.2.", family("llama")
    both = found[f"{start}block_sparse_moe.input_linear.weight"]
    assert both.shape == (2, 48, 16)
    gate = f"{start}mlp.gate_proj.weight"
    assert both[0].equal(torch.cat([dense("one", root)[x] for x in (gate, UP)]))
    out = found[f"{start}block_sparse_moe.output_linear.weight"]
    assert out[0].equal(plain[EXPERT_DOWN.format(0)])
    assert 0.01 < (out[1] - dense("two", root)[DOWN] * 0.5).std() < 0.1
    assert found[f"{start}shared_mlp.output_linear.weight"].equal(dense("three", root)[DOWN])
    again = recipe_reader.parse(mixture("one", noisy, temperature=3, **keys), "", [])
    name = "(fused experts)"
    assert plan(again, first.parents).parents[name] is first.plan.parents[name]
    other = recipe_reader.parse(mixture("one", "two", **keys), "", [])
    assert plan(other, first.parents).parents[name] is not first.plan.parents[name]


def test_trained_routers_are_read_from_their_file(mixed, trained, tmp_path):
    from merge_core import api

    root, data, found = trained
    made = mixed(data, root=root)
    digest = made.write(tmp_path / "out")
    assert load_file(tmp_path / "out" / SINGLE)[ROUTER].equal(found[ROUTER] + 1)
    assert api.merge(tmp_path / "out" / "recipe.yaml", tmp_path / "again") == digest
    card = (tmp_path / "out" / "README.md").read_text()
    sha = made.parents["routers.safetensors"].digest
    assert re.search(rf"`gate_mode: trained`, SHA-256 {sha}", card)


def spoil(root, **changes):
    file = root / "routers.safetensors"
    stored = {**load_file(file), **changes}
    save_file({name: x for name, x in stored.items() if x is not None}, file)


@pytest.mark.parametrize(
    ("changes", "error", "rule"),
    [
        ({ROUTER: None}, CheckpointError, f"lacks {ROUTER}, which the mixture needs (1 such)"),
        ({"x": torch.zeros(1)}, CheckpointError, "has x, which is no router of the mixture"),
        ({ROUTER: torch.zeros(2, 16)}, ShapeError, "as (2, 16), the mixture needs (3, 16)"),
        ({ROUTER: torch.full((3, 16), torch.nan)}, CheckpointError, "expected finite floats"),
        ({ROUTER: torch.ones(3, 16, dtype=torch.int64)}, CheckpointError, "expected finite floats"),
    ],
)
def test_file_of_other_routers_is_refused(mixed, trained, changes, error, rule):
    root, data, _ = trained
    spoil(root, **changes)
    with pytest.raises(error) as caught:
        mixed(data, root=root)
    assert rule in str(caught.value)


def test_file_that_is_not_there_is_named(mixed, trained):
    root, data, _ = trained
    (root / "routers.safetensors").unlink()
    with pytest.raises(CheckpointError) as caught:
        mixed(data, root=root)
    assert str(caught.value).startswith("file 'routers.safetensors': no such file in ")


@pytest.mark.parametrize(
    ("data", "error", "rule"),
    [
        (mixture(gate_mode="trained"), ParameterError, "moe.gate_mode: trained needs moe.gates"),
        (
            mixture(dense_layers=[4], architecture="deepseek", shared_experts=[], **DRAWN),
            ParameterError,
            "DeepSeek MoE: takes 1 shared_experts, got 0",
        ),
    ],
)
def test_what_cannot_be_planned_is_said(mixed, data, error, rule):
    with pytest.raises(error) as caught:
        mixed(data)
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("layers", "rule"),
    [
        ([4], "moe.dense_layers: expected layers from 0 to 3, got 4"),
        ([0, 1, 2, 3], "moe.dense_layers: expected fewer than all 4 layers"),
    ],
)
def test_dense_layers_are_layers_of_the_result_and_not_all(mixed, layers, rule):
    with pytest.raises(ParameterError) as caught:
        mixed(mixture(dense_layers=layers, **DRAWN), "qwen3")
    assert rule in str(caught.value)


def test_prompts_need_a_tokenizer_before_anything_is_read(mixed, own_family):
    root = own_family("llama")
    for file in root.glob("base/tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError) as caught:
        mixed(mixture(), root=root)
    assert "base has no tokenizer, which gate_mode: hidden needs for the prompts" in str(
        caught.value
    )
    assert mixed(mixture(**DRAWN), root=root).plan.steps


@pytest.mark.parametrize(
    ("key", "value", "error", "rule"),
    [
        ("hidden_act", "gelu", CheckpointError, "hidden_act: base has silu, the expert two gelu"),
        ("model_type", "mistral", CheckpointError, "model_type: base has llama"),
    ],
)
def test_expert_of_another_kind_is_named(mixed, own_family, key, value, error, rule):
    root = own_family("llama")
    file = root / "two" / "config.json"
    file.write_text(file.read_text().replace(f'"{key}": "', f'"{key}": "{value}", "x": "'))
    if key == "model_type":
        file.write_text(file.read_text().replace("LlamaForCausalLM", "MistralForCausalLM"))
    with pytest.raises(error) as caught:
        mixed(mixture(**DRAWN), root=root)
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "error", "rule"),
    [
        ({"hidden_size": 32}, ShapeError, "hidden_size: base has 16, the expert two 32"),
        ({"num_hidden_layers": 3}, CheckpointError, "two has 3 layers, the result 4"),
        (
            {"intermediate_size": 20},
            ShapeError,
            "intermediate_size: expected one size, got one 24, three 24, two 20",
        ),
        ({"mlp_bias": True}, CheckpointError, "two has model.layers.0.mlp.down_proj.bias; experts"),
    ],
)
def test_expert_of_other_sizes_is_named(mixed, own_family, sizes, error, rule):
    from transformers import LlamaConfig, LlamaForCausalLM

    root = own_family("llama")
    config = LlamaConfig.from_pretrained(root / "two")
    for key, value in sizes.items():
        setattr(config, key, value)
    shutil.rmtree(root / "two")
    LlamaForCausalLM(config).save_pretrained(root / "two")
    with pytest.raises(error) as caught:
        mixed(mixture(**DRAWN), root=root)
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("tensor", "rule"),
    [
        (None, f"moe.experts: two lacks {UP}; experts are MLPs"),
        (torch.ones(24, 16, dtype=torch.uint8), f"two has {UP} in U8, which is quantized"),
        (torch.ones(24, 8), f"{EXPERT_UP.format(1)}: the result's config"),
    ],
)
def test_expert_without_a_whole_mlp_is_named(mixed, own_family, tensor, rule):
    root = own_family("llama")
    change(root / "two", **{UP.replace(".", "__"): tensor})
    with pytest.raises((CheckpointError, ShapeError)) as caught:
        mixed(mixture(**DRAWN), root=root)
    assert rule in str(caught.value)


def test_tokenizer_of_the_dense_merge_is_that_of_the_mixture(mixed, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    moe = {"experts": TWO, "gate_mode": "cheap_embed"}
    data = {**LINEAR, "moe": moe, "chat_template": "chatml"}
    made = mixed({**data, "tokenizer": {"source": "union", "pad_to_multiple_of": 32}})
    assert made.plan.config["vocab_size"] == 64
    digest, live = made.build()
    assert made.write(tmp_path / "out") == digest
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert fresh.get_input_embeddings().weight.shape == (64, 16)
    assert "im_start" in AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    ids = torch.arange(4, 24)[None]
    with torch.no_grad():
        assert live(ids).logits.equal(fresh(ids).logits)


def test_router_that_is_not_finite_is_named(mixed, own_family):
    from merge_core.errors import NonFiniteError

    root = own_family("llama")
    bad = dense("base", root)["model.embed_tokens.weight"]
    bad[:] = torch.nan
    change(root / "base", model__embed_tokens__weight=bad)
    with pytest.raises(NonFiniteError):
        mixed(mixture(gate_mode="cheap_embed"), root=root).build()


def test_architecture_without_a_class_is_named(mixed):
    with pytest.raises(ParameterError) as caught:
        mixed(mixture(**DRAWN), "gemma2")
    assert "base is a model of type 'gemma2', of which no class of mixtures is made" in str(
        caught.value
    )

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from merge_core.errors import CheckpointError
from merge_core.merge.execute import Execution
from merge_core.merge.nested import plan
from merge_core.parents.checkpoint import Checkpoint
from merge_core.parents.lora import PICKLE
from merge_core.parents.lora_keys import CONFIG, WEIGHTS
from merge_core.parents.weight_files import SINGLE, TensorInfo
from tests.merge_core.parents.adapters import (
    ATTENTION,
    Q,
    adapted_by,
    assert_equal_to_peft,
    merged,
    opened,
    small,
    train,
)
from tests.merge_core.places import at

LLAMA = {
    "plain": {"target_modules": ATTENTION, "r": 4, "lora_alpha": 6},
    "all linear": {"target_modules": "all-linear", "r": 3},
    "head": {"target_modules": ["q_proj", "lm_head"], "r": 3},
    "rslora": {"target_modules": ATTENTION, "r": 4, "use_rslora": True},
    "patterns": {
        "target_modules": ATTENTION,
        "r": 4,
        "lora_alpha": 6,
        "rank_pattern": {"q_proj": 2, "layers.[12].self_attn.k_proj": 5, "proj": 7},
        "alpha_pattern": {"model.layers.0.self_attn.o_proj": 1, "_proj": 9, ".*q_proj": 3},
    },
    "patterns with rslora": {
        "target_modules": ATTENTION,
        "use_rslora": True,
        "rank_pattern": {"0.self_attn.q_proj": 3, r"layers\.\d+\.self_attn\.q_proj": 2},
        "alpha_pattern": {"^model.layers.1.self_attn.q_proj": 20},
    },
    "embedding": {"target_modules": ["embed_tokens", "q_proj"], "r": 4, "lora_alpha": 3},
    "embedding and head": {"target_modules": ["embed_tokens", "lm_head"], "r": 4},
    "modules to save": {"target_modules": ATTENTION, "modules_to_save": ["lm_head", "norm"]},
    "embeddings saved whole": {"target_modules": ATTENTION, "save_embedding_layers": True},
    "dora": {"target_modules": [*ATTENTION, "up_proj"], "r": 4, "use_dora": True},
    "dora of the embedding": {"target_modules": ["embed_tokens"], "r": 4, "use_dora": True},
    "gaussian": {"target_modules": ATTENTION, "init_lora_weights": "gaussian"},
    "other layers": {"target_modules": ["down_proj"], "layers_to_transform": [1, 3]},
}


GPT2 = {
    "plain": {"target_modules": ["c_attn", "c_proj", "c_fc"], "r": 4, "fan_in_fan_out": True},
    "unsaid": {"target_modules": ["c_attn", "c_proj"], "r": 4},
    "square only": {"target_modules": ["attn.c_proj"], "r": 4, "fan_in_fan_out": True},
    "rslora": {"target_modules": ["c_attn"], "use_rslora": True, "fan_in_fan_out": True},
    "all biases": {"target_modules": ["c_attn"], "bias": "all", "fan_in_fan_out": True},
    "its biases": {"target_modules": ["c_attn"], "bias": "lora_only", "fan_in_fan_out": True},
    "bias of B": {"target_modules": ["c_attn"], "lora_bias": True, "fan_in_fan_out": True},
    "both biases": {"target_modules": ["c_attn", "c_fc"], "bias": "all", "lora_bias": True},
    "dora": {"target_modules": ["c_attn", "c_proj"], "use_dora": True, "fan_in_fan_out": True},
    "positions": {"target_modules": ["wpe"], "r": 4, "fan_in_fan_out": True},
}


@pytest.mark.parametrize("kind", LLAMA)
def test_llama_with_an_adapter_is_what_peft_merges(bases, tmp_path, kind):
    folder = train(bases["llama"], tmp_path / "a", **LLAMA[kind])
    adapted = adapted_by("x", Checkpoint(at(bases["llama"], "base")), folder)
    assert_equal_to_peft(adapted, bases["llama"], folder)


@pytest.mark.parametrize("kind", GPT2)
def test_gpt2_with_an_adapter_is_what_peft_merges(bases, tmp_path, kind):
    folder = train(bases["gpt2"], tmp_path / "a", **GPT2[kind])
    adapted = adapted_by("x", Checkpoint(at(bases["gpt2"], "base")), folder)
    assert_equal_to_peft(adapted, bases["gpt2"], folder)


@pytest.mark.parametrize("flag", [True, False])
def test_square_conv1d_beside_a_linear_head_is_what_peft_merges(bases, tmp_path, flag):
    base = bases["gpt2-untied"]
    folder = train(
        base, tmp_path / "a", target_modules=["attn.c_proj", "lm_head"], fan_in_fan_out=flag
    )
    assert_equal_to_peft(adapted_by("x", Checkpoint(at(base, "base")), folder), base, folder)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_beside_modules_to_save_are_what_peft_merges(bases, tmp_path, bias):
    options = {"target_modules": ["q_proj"], "modules_to_save": ["k_proj"], "bias": bias}
    folder = train(bases["biased"], tmp_path / "a", **options)
    adapted = adapted_by("x", Checkpoint(at(bases["biased"], "base")), folder)
    assert_equal_to_peft(adapted, bases["biased"], folder)


def test_it_looks_like_the_parent_it_adapts(bases, tmp_path):
    opened(small(bases, tmp_path))
    base = Checkpoint(at(bases["llama"], "base"))
    adapted = adapted_by("base+a", base, tmp_path / "a")
    assert (adapted.reference, adapted.folder) == ("base+a", base.folder)
    assert adapted.config == base.config
    assert adapted.tensors == base.tensors
    assert adapted.located.lora.folder == tmp_path / "a"
    assert adapted.architecture is base.architecture


def test_untouched_tensor_is_the_parents_own(bases, tmp_path):
    case = small(bases, tmp_path)
    kept = case.base.tensor
    case.base.tensor = lambda name: handed.setdefault(name, kept(name))
    handed = {}
    adapted = opened(case)
    assert adapted.tensor("model.norm.weight") is handed["model.norm.weight"]


def test_adapted_tensor_of_a_bfloat16_parent_is_an_unrounded_float32_sum(family, bases, tmp_path):
    case = small(bases, tmp_path)
    case.base = Checkpoint(at(family("llama", "bfloat16") / "base", "base"))
    name = "model.layers.0.self_attn.q_proj.weight"
    a, b = (case.tensors[f"{Q}.lora_{part}.weight"] for part in "AB")
    wanted = case.base.tensor(name).float() + 1.5 * (b @ a)
    adapted = opened(case)
    assert adapted.tensor(name).dtype == torch.float32
    torch.testing.assert_close(adapted.tensor(name), wanted, rtol=1e-6, atol=1e-6)
    assert not adapted.tensor(name).equal(wanted.bfloat16().float())
    assert adapted.tensors[name] == TensorInfo(SINGLE, (16, 16), "BF16")


def test_tensors_in_bfloat16_give_a_float32_product(bases, tmp_path):
    case = small(bases, tmp_path)
    case.tensors = {key: tensor.bfloat16() for key, tensor in case.tensors.items()}
    found = opened(case).tensor("model.layers.0.self_attn.q_proj.weight")
    a, b = (case.tensors[f"{Q}.lora_{part}.weight"].double() for part in "AB")
    wanted = case.base.tensor("model.layers.0.self_attn.q_proj.weight") + 1.5 * (b @ a)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6)


def test_asking_twice_gives_new_tensors_with_the_same_bits_and_changes_no_file(bases, tmp_path):
    adapted = opened(small(bases, tmp_path, use_dora=True))
    name, digest = "model.layers.0.self_attn.q_proj.weight", adapted.digest
    first = adapted.tensor(name)
    kept = first.clone()
    first.zero_()
    assert adapted.tensor(name).equal(kept)
    assert opened(small(bases, tmp_path, use_dora=True)).digest == digest


@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["plain", "dora"])
def test_bits_do_not_depend_on_the_number_of_threads(tmp_path, options):
    case = wide(tmp_path, options)
    outs, before = [], torch.get_num_threads()
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        try:
            outs.append({name: case.tensor(name) for name in case.tensors})
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    assert all(out[name].equal(outs[0][name]) for out in outs for name in out)


def wide(tmp_path, options):
    """An adapted Conv1D and Linear of shapes whose product by MKL is another with four threads."""
    stream = torch.Generator().manual_seed(0)
    base, folder = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    folder.mkdir()
    (base / "config.json").write_text('{"model_type": "gpt2"}')
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 256, **options}))
    weights, tensors = {}, {}
    for name, inner, outer in (("h.0.conv1d", 4096, 17), ("h.0.linear", 33, 4096)):
        shape = (inner, outer) if "conv1d" in name else (outer, inner)
        weights[f"{name}.weight"] = torch.randn(shape, generator=stream)
        tensors[f"{name}.lora_A.weight"] = torch.randn(256, inner, generator=stream)
        tensors[f"{name}.lora_B.weight"] = torch.randn(outer, 256, generator=stream)
        if options:
            tensors[f"{name}.lora_magnitude_vector"] = torch.randn(outer, generator=stream)
    save_file(weights, base / SINGLE)
    save_file(tensors, folder / WEIGHTS)
    return adapted_by("x", Checkpoint(at(base, "base")), folder)


def test_adapters_of_different_ranks_stand_side_by_side_on_one_base(bases, tmp_path):
    base = Checkpoint(at(bases["llama"], "base"))
    for r in (2, 5):
        folder = train(bases["llama"], tmp_path / str(r), target_modules=ATTENTION, r=r)
        assert_equal_to_peft(adapted_by(f"base+{r}", base, folder), bases["llama"], folder)


def test_merge_takes_an_adapted_parent_as_any_other(bases, tmp_path, planned):
    text = "merge_method: linear\nmodels: [{model: base}, {model: one}]\nparameters: {weight: 1}"
    case = planned(text, kind="llama")
    folder = train(bases["llama"], tmp_path / "a", target_modules=ATTENTION, use_dora=True)
    parents = {**case.parents, "one": adapted_by("one", case.parents["base"], folder)}
    wanted = merged(bases["llama"], folder)
    made = plan(case.plan.recipe, parents)
    for step in made.steps:
        half = (parents["base"].tensor(step.tensor) + wanted[step.tensor]) / 2
        torch.testing.assert_close(Execution(made).carry_out(step), half)


def test_digest_follows_the_parent_the_tensors_and_the_scales(bases, tmp_path):
    case = small(bases, tmp_path)
    digests = [opened(case).digest]
    case.config["lora_alpha"] = 7
    digests.append(opened(case).digest)
    case.config |= {"lora_alpha": 6, "use_rslora": True}
    digests.append(opened(case).digest)
    case.config["use_rslora"] = False
    case.tensors[f"{Q}.lora_A.weight"][0, 0] += 1
    digests.append(opened(case).digest)
    case.base._seen = case.base._content._replace(digest="another")
    digests.append(opened(case).digest)
    assert len({*digests, Checkpoint(at(bases["llama"], "base")).digest}) == 6
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)


def test_sums_tell_apart_the_parents_tensors_and_the_adapters(bases, tmp_path):
    case = small(bases, tmp_path)
    before = opened(case).sums
    base = Checkpoint(at(bases["llama"], "base"))
    assert before.items() >= base.sums.items()
    assert before.keys() - base.sums.keys() == set(opened(case)._stored)


def test_digest_does_not_follow_what_decides_nothing(bases, tmp_path):
    case = small(bases, tmp_path)
    digest = opened(case).digest
    case.config |= {"lora_dropout": 0.5, "base_model_name_or_path": "elsewhere"}
    assert opened(case).digest == digest


def test_no_tensor_is_read_when_an_adapter_is_opened(bases, tmp_path):
    case = small(bases, tmp_path)
    case.base.tensor = None
    opened(case)


def test_folder_without_weights_is_refused(bases, tmp_path):
    case = small(bases, tmp_path)
    (case.folder / WEIGHTS).unlink()
    with pytest.raises(
        CheckpointError, match=r"a: no adapter_model\.safetensors and no adapter_model\.bin$"
    ):
        adapted_by("x", case.base, case.folder)


def test_pickled_weights_alone_are_read_and_nothing_else_of_a_pickle(bases, tmp_path):
    case = small(bases, tmp_path)
    wanted = opened(case)
    (case.folder / WEIGHTS).unlink()
    torch.save(case.tensors, case.folder / PICKLE)
    found = adapted_by("x", case.base, case.folder)
    assert all(found.tensor(name).equal(wanted.tensor(name)) for name in wanted.tensors)
    torch.save({**case.tensors, "x": Payload()}, case.folder / PICKLE)
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin: not a pickle of plain weights"):
        adapted_by("x", case.base, case.folder)


class Payload:
    """What a pickle may run when it is read."""

    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


@pytest.mark.parametrize("size", [0, 20, -1])
def test_damaged_weights_are_refused(bases, tmp_path, size):
    case = small(bases, tmp_path)
    (case.folder / WEIGHTS).write_bytes((case.folder / WEIGHTS).read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: damaged or no safe"):
        adapted_by("x", case.base, case.folder)

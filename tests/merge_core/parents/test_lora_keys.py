import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_core.errors import CheckpointError, ShapeError
from merge_core.parents.checkpoint import Checkpoint
from merge_core.parents.lora_keys import CONFIG, WEIGHTS
from merge_core.parents.weight_files import SINGLE, TensorInfo
from tests.merge_core.parents.adapters import (
    ATTENTION,
    K,
    Q,
    adapted_by,
    assert_equal_to_peft,
    merged,
    opened,
    renamed,
    small,
    train,
)
from tests.merge_core.places import at


def test_config_without_rank_and_alpha_means_pefts_eight(bases, tmp_path):
    case = small(bases, tmp_path, r=8, lora_alpha=8)
    wanted = opened(case).tensor("model.layers.0.self_attn.q_proj.weight")
    del case.config["r"], case.config["lora_alpha"]
    assert opened(case).tensor("model.layers.0.self_attn.q_proj.weight").equal(wanted)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"\.weight$", r".default.weight"),
        (r"(lora_[AB])\.", r"\1.my adapter."),
        (r"^base_model\.model\.", ""),
        (r"(lora_magnitude_vector)$", r"\1.weight"),
        (r"(lora_magnitude_vector)$", r"\1.default"),
        (r"(lora_magnitude_vector)$", r"\1.default.weight"),
        (r"^base_model\.model\.model\.", "base_model.model."),
        (r"^base_model\.model\.", "base_model.model.language."),
    ],
)
def test_other_spellings_of_the_keys_mean_the_same(bases, tmp_path, pattern, text):
    case = small(bases, tmp_path, use_dora=True)
    wanted = opened(case)
    case.tensors = renamed(case, pattern, text)
    found = opened(case)
    assert all(found.tensor(name).equal(wanted.tensor(name)) for name in found.tensors)


@pytest.mark.parametrize("key", ["lora_embedding_A", "lora_embedding_B"])
def test_embedding_keys_may_have_an_adapter_name(bases, tmp_path, key):
    case = small(bases, tmp_path, target_modules=["embed_tokens"])
    wanted = opened(case).tensor("model.embed_tokens.weight")
    case.tensors = renamed(case, f"{key}$", f"{key}.default")
    assert opened(case).tensor("model.embed_tokens.weight").equal(wanted)


def test_parent_stored_without_the_models_prefix_gets_the_same_weights(bases, tmp_path):
    folder = train(bases["gpt2"], tmp_path / "a", target_modules=["c_attn"], bias="all")
    bare = shutil.copytree(bases["gpt2"], tmp_path / "bare")
    stored = load_file(bare / SINGLE)
    save_file({n.removeprefix("transformer."): x for n, x in stored.items()}, bare / SINGLE)
    wanted = adapted_by("x", Checkpoint(at(bases["gpt2"], "base")), folder)
    found = adapted_by("x", Checkpoint(at(bare, "bare")), folder)
    assert found.tensors.keys() == wanted.tensors.keys()
    for name in found.tensors:
        assert found.tensor(name).equal(wanted.tensor(name))


def test_old_files_that_name_a_bias_without_base_layer_replace_it(bases, tmp_path):
    folder = train(bases["gpt2"], tmp_path / "a", target_modules=["c_attn"], bias="lora_only")
    tensors = load_file(folder / WEIGHTS)
    save_file({n.replace(".base_layer.", "."): x for n, x in tensors.items()}, folder / WEIGHTS)
    adapted = adapted_by("x", Checkpoint(at(bases["gpt2"], "base")), folder)
    biases = [key for key in tensors if key.endswith(".base_layer.bias")]
    assert len(biases) == 2
    for key in biases:
        name = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
        assert adapted.tensor(name).equal(tensors[key])


def test_adapter_for_another_base_is_refused_and_its_base_named(bases, tmp_path):
    case = small(bases, tmp_path)
    case.config["base_model_name_or_path"] = "meta/llama"
    case.tensors = renamed(case, "q_proj", "query")
    with pytest.raises(
        CheckpointError,
        match=r"base\+a: changes model\.layers\.0\.self_attn\.query\.weight, base has no such "
        r"tensor: a LoRA for another base \(its config names meta/llama\)",
    ):
        opened(case)


def test_adapter_that_names_no_base_is_said_to_name_none(bases, tmp_path):
    case = small(bases, tmp_path)
    case.config["base_model_name_or_path"] = None
    case.tensors = renamed(case, "q_proj", "query")
    with pytest.raises(CheckpointError, match=r"another base \(its config names no base\)"):
        opened(case)


@pytest.mark.parametrize(("part", "shape"), [("A", (4, 17)), ("B", (17, 4))])
def test_pair_of_other_shapes_than_the_parents_is_refused(bases, tmp_path, part, shape):
    case = small(bases, tmp_path)
    case.tensors[f"{Q}.lora_{part}.weight"] = torch.zeros(shape)
    with pytest.raises(
        ShapeError,
        match=r"q_proj\.weight: base is \(16, 16\), base\+a has A \(4, 1.\) and B \(1., 4\): "
        r"a LoRA for another base \(its config names /.*\)",
    ):
        opened(case)


def test_pair_turned_round_is_refused_where_the_layer_is_linear(bases, tmp_path):
    case = small(bases, tmp_path)
    case.tensors[f"{K}.lora_A.weight"] = torch.zeros(4, 8)
    case.tensors[f"{K}.lora_B.weight"] = torch.zeros(16, 4)
    case.config["fan_in_fan_out"] = True
    with pytest.raises(ShapeError, match=r"k_proj\.weight: base is \(8, 16\), .* A \(4, 8\)"):
        opened(case)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((5, 16), (16, 5)),
        ((4, 16), (16, 5)),
        ((5, 16), (16, 4)),
        ((4, 16, 1), (16, 4, 1)),
        ((), (16, 4)),
    ],
)
def test_pair_of_another_rank_or_kind_than_the_config_says_is_refused(bases, tmp_path, a, b):
    case = small(bases, tmp_path)
    case.tensors |= {
        f"{Q}.lora_A.weight": torch.zeros(a),
        f"{Q}.lora_B.weight": torch.zeros(b),
    }
    with pytest.raises(
        ShapeError, match=r"has A .* and B .*, adapter_config\.json says matrices with r = 4; no"
    ):
        opened(case)


@pytest.mark.parametrize(("gone", "left"), [("lora_A", "lora_B"), ("lora_B", "lora_A")])
def test_half_a_pair_is_refused(bases, tmp_path, gone, left):
    case = small(bases, tmp_path)
    del case.tensors[f"{Q}.{gone}.weight"]
    with pytest.raises(
        CheckpointError, match=rf"q_proj has \['{left}'\] but no {gone}; save it again"
    ):
        opened(case)


@pytest.mark.parametrize(("option", "part"), [("use_dora", "lora_mag.*"), ("lora_bias", "lora_B.")])
def test_part_that_the_config_announces_and_the_file_lacks_is_refused(
    bases, tmp_path, option, part
):
    case = small(bases, tmp_path)
    case.config[option] = True
    case.base = Checkpoint(at(bases["llama"], "base"))
    case.base.tensors = {  # with biases
        **case.base.tensors,
        **{
            name.replace("weight", "bias"): TensorInfo(SINGLE, (info.shape[0],), "F32")
            for name, info in case.base.tensors.items()
        },
    }
    with pytest.raises(CheckpointError, match=rf"has \['lora_A', 'lora_B'\] but no {part}"):
        opened(case)


@pytest.mark.parametrize(
    "part", ["lora_magnitude_vector", "lora_B.bias", "lora_diag", "lora_A.bias", "lora_embedding_A"]
)
def test_part_that_the_config_does_not_announce_is_refused(bases, tmp_path, part):
    case = small(bases, tmp_path)
    case.tensors[f"{Q}.{part}"] = torch.zeros(16)
    with pytest.raises(CheckpointError, match=r"is left over|has \[.* but no lora_embedding_B"):
        opened(case)


def test_lora_bias_for_a_layer_without_bias_is_refused(bases, tmp_path):
    case = small(bases, tmp_path)
    case.config["lora_bias"] = True
    case.tensors[f"{Q}.lora_B.bias"] = torch.zeros(16)
    with pytest.raises(CheckpointError, match=r"changes .*_proj\.bias, base has no such tensor"):
        opened(case)


def test_magnitude_of_another_length_is_refused(bases, tmp_path):
    case = small(bases, tmp_path, use_dora=True)
    case.tensors[f"{Q}.lora_magnitude_vector"] = torch.zeros(15)
    with pytest.raises(ShapeError, match=r"q_proj\.lora_mag\S+ of base\+a is \(15,\), base wants"):
        opened(case)


def test_replaced_tensor_of_a_resized_vocabulary_is_refused(bases, tmp_path):
    case = small(bases, tmp_path)
    case.tensors["base_model.model.lm_head.weight"] = torch.zeros(60, 16)
    with pytest.raises(
        ShapeError,
        match=r"lm_head\.weight of base\+a is \(60, 16\), base wants \(\d+, 16\): a LoRA",
    ):
        opened(case)


@pytest.mark.parametrize("also", ["lora_A.other.weight", "lora_A.weight.weight"])
def test_two_adapters_in_one_file_are_refused(bases, tmp_path, also):
    case = small(bases, tmp_path)
    case.tensors[f"{Q}.{also}"] = torch.zeros(4, 16)
    with pytest.raises(CheckpointError, match=r"lora_A\S+ and \S+lora_A\S+ have one place; remove"):
        opened(case)


def test_two_names_of_one_tensor_are_refused(bases, tmp_path):
    case = small(bases, tmp_path)
    for part in "AB":
        key = f"{Q}.lora_{part}.weight"
        case.tensors[key.replace("model.model.model", "model.model")] = case.tensors[key] + 1
    with pytest.raises(
        CheckpointError, match=r"two of its keys change model\.layers\.0\.self_attn"
    ):
        opened(case)


def test_names_that_fit_by_different_prefixes_are_refused(bases, tmp_path):
    case = small(bases, tmp_path)
    case.tensors = renamed(case, r"model\.model\.layers\.0", "model.layers.0")
    case.tensors = renamed(case, r"model\.model\.layers\.1", "model.other.model.layers.1")
    with pytest.raises(CheckpointError, match=r"is in base by no prefix, or by several, that fits"):
        opened(case)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool])
def test_adapter_of_whole_numbers_is_refused(bases, tmp_path, dtype):
    case = small(bases, tmp_path)
    case.tensors = {key: tensor.to(dtype) for key, tensor in case.tensors.items()}
    with pytest.raises(CheckpointError, match=r"base stores F32, \S+ of base\+a is (I8|BOOL); use"):
        opened(case)


def test_quantized_parent_is_refused(bases, tmp_path):
    case = small(bases, tmp_path)
    case.base.tensors = {
        n: TensorInfo(SINGLE, info.shape, "U8") for n, info in case.base.tensors.items()
    }
    with pytest.raises(CheckpointError, match=r"base stores U8, .*; use a base that is not quant"):
        opened(case)


def head_and_embedding(parent):
    return (parent.tensor(f"{name}.weight").float() for name in ("lm_head", "model.embed_tokens"))


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"target_modules": ["embed_tokens"]}, "embedding"),
        ({"target_modules": ["lm_head"]}, "head"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, "embedding"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "head"),
    ],
)
def test_change_of_one_of_two_tied_tensors_unties_them(bases, tmp_path, options, changed):
    base = Checkpoint(at(bases["tied"], "base"))
    folder = train(bases["tied"], tmp_path / "a", r=4, **options)
    adapted = adapted_by("base+a", base, folder)
    shared = base.tensor("model.embed_tokens.weight")
    head, embedding = head_and_embedding(adapted)
    assert head.equal(shared) is (changed == "embedding")
    assert embedding.equal(shared) is (changed == "head")
    # peft merges into the one that both share: its sum is what the changed one has
    wanted = merged(bases["tied"], folder)["lm_head.weight"]
    if "modules_to_save" not in options:
        found = embedding if changed == "embedding" else head
        assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    assert adapted.config["tie_word_embeddings"] is False
    assert adapted.architecture.tied == {}


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["embed_tokens", "lm_head"]},
    ],
)
def test_adapter_of_both_tied_tensors_gives_both(bases, tmp_path, options):
    folder = train(bases["tied"], tmp_path / "a", r=4, **options)
    adapted = adapted_by("base+a", Checkpoint(at(bases["tied"], "base")), folder)
    head, embedding = head_and_embedding(adapted)
    assert not head.equal(embedding)
    if "modules_to_save" in options:
        saved = load_file(folder / WEIGHTS)
        assert head.equal(saved["base_model.model.lm_head.weight"])
        assert embedding.equal(saved["base_model.model.model.embed_tokens.weight"])


def test_other_layers_of_a_tied_model_are_adapted(bases, tmp_path):
    folder = train(
        bases["tied"], tmp_path / "a", target_modules=ATTENTION, modules_to_save=["norm"]
    )
    assert_equal_to_peft(
        adapted_by("x", Checkpoint(at(bases["tied"], "base")), folder), bases["tied"], folder
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"peft_type": "LOHA"}, r"peft_type is 'LOHA'; only LORA is read"),
        ({"peft_type": None}, r"peft_type is None; only LORA is read"),
        ({"layer_replication": [[0, 1]]}, r"layer_replication is not read here; merge with peft"),
        ({"trainable_token_indices": [1]}, r"trainable_token_indices is not read here"),
        ({"layer_replication": [[0, 2]]}, r"layer_replication is not read here"),
        ({"megatron_config": {"a": 1}}, r"megatron_config is not read here"),
        ({"use_qalora": True}, r"use_qalora is not read here"),
        ({"use_bdlora": {"nblocks": 2}}, r"use_bdlora is not read here"),
        ({"alora_invocation_tokens": [1]}, r"alora_invocation_tokens is not read here"),
        ({"arrow_config": {"top_k": 3}}, r"arrow_config is not read here"),
        ({"kasa_config": {"a": 1}}, r"kasa_config is not read here"),
        ({"monteclora_config": {"a": 1}}, r"monteclora_config is not read here"),
        ({"velora_config": {"a": 1}}, r"velora_config is not read here"),
        ({"enable_lora": [True]}, r"enable_lora is not read here"),
        ({"init_lora_weights": "pissa_niter_4"}, r"is 'pissa_niter_4', which changes the base; sa"),
        ({"init_lora_weights": "olora"}, r"init_lora_weights is 'olora', which changes the base"),
        ({"init_lora_weights": "corda"}, r"init_lora_weights is 'corda', which changes the base"),
        ({"init_lora_weights": "loftq"}, r"init_lora_weights is 'loftq', which changes the base"),
        ({"init_lora_weights": "lora_ga"}, r"is 'lora_ga', which changes the base"),
        ({"r": 0}, r"r of model\.\S+: expected 1 or more, got 0"),
        ({"r": "4"}, r"r of model\.\S+: no number: '4'"),
        ({"r": True}, r"r of model\.\S+: no number: True"),
        ({"lora_alpha": None}, r"lora_alpha of model\.\S+: no number: None"),
        ({"lora_alpha": float("inf")}, r"lora_alpha of model\.\S+: no number: inf"),
        ({"rank_pattern": {"q_proj": None}}, r"r of model\.\S+q_proj: no number: None"),
        ({"rank_pattern": ["q_proj"]}, r"rank_pattern: no patterns: "),
        ({"alpha_pattern": {"(": 4}}, r"alpha_pattern: no patterns: .*missing \)"),
        (
            {"rank_pattern": {"(.+)+!": 4}},
            r"no patterns: it takes more than 1 s of processor time",
        ),
    ],
)
def test_config_that_asks_for_what_is_not_read_is_refused(bases, tmp_path, setting, message):
    case = small(bases, tmp_path)
    case.config |= setting
    with pytest.raises(CheckpointError, match=rf"a/adapter_config\.json: .*{message}"):
        opened(case)


@pytest.mark.parametrize("start", ["gaussian", "eva", "orthogonal", "mica", False])
def test_starts_that_leave_the_base_alone_are_read(bases, tmp_path, start):
    case = small(bases, tmp_path)
    wanted = opened(case).tensor("model.layers.0.self_attn.q_proj.weight")
    case.config["init_lora_weights"] = start
    assert opened(case).tensor("model.layers.0.self_attn.q_proj.weight").equal(wanted)


def test_weights_without_a_tensor_are_refused(bases, tmp_path):
    case = small(bases, tmp_path)
    case.tensors = {}
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors holds no tensors"):
        opened(case)


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_config_that_cannot_be_read_is_refused(bases, tmp_path, text):
    case = small(bases, tmp_path)
    (case.folder / CONFIG).unlink()
    if text is not None:
        (case.folder / CONFIG).write_text(text)
    with pytest.raises(
        CheckpointError, match=r"adapter_config\.json: (cannot be read|expected a JSON object)"
    ):
        adapted_by("x", case.base, case.folder)

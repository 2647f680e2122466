import json
import re
import shutil
import warnings
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_core.errors import CheckpointError, ShapeError
from merge_core.merge.execute import Execution
from merge_core.parents.locate import Located, Place, at
from merge_core.parents.lora import CONFIG, PICKLE, WEIGHTS, Adapted
from merge_core.parents.open import Checkpoint
from merge_core.parents.weight_files import SINGLE, TensorInfo
from merge_core.plan.planner import plan

LAYER = "base_model.model.model.layers.0."
Q, K = f"{LAYER}self_attn.q_proj", f"{LAYER}self_attn.k_proj"
ATTENTION = ["q_proj", "k_proj", "o_proj"]  # of 16 x 16, 8 x 16 and 16 x 16


@pytest.fixture(scope="module")
def bases(family, tmp_path_factory):
    """Return folders of small float32 bases; biases in ``biased``, Conv1D in the GPT-2 ones."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("bases")
    sizes = {"vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1}
    gpt2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, **sizes}
    llama = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, **sizes}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "gpt2": GPT2LMHeadModel(GPT2Config(**gpt2)),
            "gpt2-untied": GPT2LMHeadModel(GPT2Config(tie_word_embeddings=False, **gpt2)),
            "biased": LlamaForCausalLM(
                LlamaConfig(num_hidden_layers=1, attention_bias=True, **llama)
            ),
        }
        for name, model in made.items():
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.2)
            model.save_pretrained(root / name)
    return {
        "llama": family("llama") / "base",
        "tied": family("llama-tied") / "base",
        **{name: root / name for name in made},
    }


def train(base, out, **options):
    """Save what peft would after some training of the base: every trained entry is random."""
    import peft
    from transformers import AutoModelForCausalLM

    saving = {"save_embedding_layers": options.pop("save_embedding_layers", "auto")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, on ties, layer kinds and saved embeddings
        model = AutoModelForCausalLM.from_pretrained(base)
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **options))
        stream = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=stream)
        model.save_pretrained(out, **saving)
    return out


def merged(base, folder):
    """Return the weights of peft's own merge in float32."""
    import peft
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in ``train``
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        return peft.PeftModel.from_pretrained(model, folder).merge_and_unload().state_dict()


def assert_equal_to_peft(adapted, base, folder):
    """Every tensor is within 1e-6 of its largest entry: sums in other orders round otherwise."""
    wanted = merged(base, folder)
    for name in adapted.tensors:
        found, size = adapted.tensor(name), wanted[name].abs().max()
        assert (found - wanted[name]).abs().max() <= 1e-6 * size, name


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


def adapted_by(reference, base, folder):
    return Adapted(Located(reference, base.located.model, Place(str(folder), folder)), base)


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


def small(bases, tmp_path, **options):
    """An adapter of q_proj and k_proj, to spoil; returns base, folder, tensors and config."""
    options = {"target_modules": ["q_proj", "k_proj"], "r": 4, "lora_alpha": 6, **options}
    folder = train(bases["llama"], tmp_path / "a", **options)
    return SimpleNamespace(
        base=Checkpoint(at(bases["llama"], "base")),
        folder=folder,
        tensors=load_file(folder / WEIGHTS),
        config=json.loads((folder / CONFIG).read_text()),
    )


def opened(case):
    """Write tensors and config of a case and open it."""
    save_file(case.tensors, case.folder / WEIGHTS)
    (case.folder / CONFIG).write_text(json.dumps(case.config))
    return adapted_by("base+a", case.base, case.folder)


def renamed(case, pattern, text):
    return {re.sub(pattern, text, key): tensor for key, tensor in case.tensors.items()}


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
    assert found.tensors.keys() == {n.removeprefix("transformer.") for n in wanted.tensors}
    for name in found.tensors:
        assert found.tensor(name).equal(wanted.tensor(f"transformer.{name}"))


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
    case.base.__dict__["digest"] = "another"
    digests.append(opened(case).digest)
    assert len({*digests, Checkpoint(at(bases["llama"], "base")).digest}) == 6
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)


def test_digest_does_not_follow_what_decides_nothing(bases, tmp_path):
    case = small(bases, tmp_path)
    digest = opened(case).digest
    case.config |= {"lora_dropout": 0.5, "base_model_name_or_path": "elsewhere"}
    assert opened(case).digest == digest


def test_no_tensor_is_read_when_an_adapter_is_opened(bases, tmp_path):
    case = small(bases, tmp_path)
    case.base.tensor = None
    opened(case)


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


@pytest.mark.parametrize("name", ["model.embed_tokens", "embed_tokens", "lm_head"])
@pytest.mark.parametrize("kind", ["whole", "low-rank"])
def test_change_of_a_tied_embedding_or_head_is_refused(bases, tmp_path, name, kind):
    case = small(bases, tmp_path)
    case.base = Checkpoint(at(bases["tied"], "base"))
    key = f"base_model.model.{name}"
    if kind == "whole":
        case.tensors[f"{key}.weight"] = torch.zeros(49, 16)
    else:
        case.tensors[f"{key}.lora_A.weight"] = torch.zeros(4, 16)
        case.tensors[f"{key}.lora_B.weight"] = torch.zeros(49, 4)
    with pytest.raises(
        CheckpointError,
        match=rf"changes {name}\.weight, base ties lm_head\.weight to model\.embed_tokens\.weight: "
        r"one tensor cannot be both; save the base with tie_word_embeddings=False first",
    ):
        opened(case)


def test_tied_embedding_is_refused_because_peft_moves_the_head_with_it(bases, tmp_path):
    folder = train(bases["tied"], tmp_path / "a", target_modules=["embed_tokens"], r=4)
    wanted = merged(bases["tied"], folder)
    assert wanted["lm_head.weight"].equal(wanted["model.embed_tokens.weight"])
    with pytest.raises(CheckpointError, match=r"changes model\.embed_tokens\.weight, base ties"):
        adapted_by("x", Checkpoint(at(bases["tied"], "base")), folder)


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
        ({"target_parameters": ["w"]}, r"target_parameters is not read here; merge with peft"),
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
        ({"lora_alpha": float("nan")}, r"lora_alpha of model\.\S+: no number: nan"),
        ({"rank_pattern": {"q_proj": None}}, r"r of model\.\S+q_proj: no number: None"),
        ({"rank_pattern": ["q_proj"]}, r"rank_pattern: no patterns: "),
        ({"alpha_pattern": {"(": 4}}, r"alpha_pattern: no patterns: missing \)"),
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


def test_folder_without_weights_is_refused(bases, tmp_path):
    case = small(bases, tmp_path)
    (case.folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"a: no adapter_model\.safetensors$"):
        adapted_by("x", case.base, case.folder)


def test_pickled_weights_alone_are_refused_by_name(bases, tmp_path):
    case = small(bases, tmp_path)
    (case.folder / WEIGHTS).rename(case.folder / PICKLE)
    with pytest.raises(
        CheckpointError,
        match=r"no adapter_model\.safetensors; adapter_model\.bin is a pickle, save it as safe",
    ):
        adapted_by("x", case.base, case.folder)


@pytest.mark.parametrize("size", [0, 20, -1])
def test_damaged_weights_are_refused(bases, tmp_path, size):
    case = small(bases, tmp_path)
    (case.folder / WEIGHTS).write_bytes((case.folder / WEIGHTS).read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: damaged or no safe"):
        adapted_by("x", case.base, case.folder)


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

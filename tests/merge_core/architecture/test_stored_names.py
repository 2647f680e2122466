import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from merge_core.architecture import model_class
from merge_core.architecture.layers import Layers, modules_of
from merge_core.errors import CheckpointError
from merge_core.parents.checkpoint import Checkpoint
from merge_core.parents.weight_files import SINGLE
from tests.merge_core.places import at

SMALL = {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 24, "vocab_size": 40}
HEADS = {"num_attention_heads": 2}
TEXT = {**SMALL, **HEADS, "num_key_value_heads": 1, "head_dim": 8}
VISION = {**SMALL, **HEADS, "image_size": 8, "patch_size": 4}
QWEN = {**TEXT, "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
EYE = {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24}
CONFIGS = {
    "gpt2": ("GPT2LMHeadModel", {"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 40}),
    "bert": ("BertForMaskedLM", {**SMALL, **HEADS}),
    "gemma3": ("Gemma3ForConditionalGeneration", {"text_config": TEXT, "vision_config": VISION}),
    "llava": (
        "LlavaForConditionalGeneration",
        {
            "text_config": {"model_type": "llama", **TEXT},
            "vision_config": {"model_type": "clip_vision_model", **VISION},
        },
    ),
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", {"text_config": QWEN, "vision_config": EYE}),
    "qwen2_5_vl": (
        "Qwen2_5_VLForConditionalGeneration",
        {"text_config": QWEN, "vision_config": {**EYE, "out_hidden_size": 16}},
    ),
    "mixtral": (
        "MixtralForCausalLM",
        {**SMALL, **HEADS, "num_key_value_heads": 1, "num_local_experts": 12},
    ),
}


def config_of(kind):
    name, settings = CONFIGS[kind]
    return {"model_type": kind, "architectures": [name], **settings}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind) / "model"
            found = model_class.config_of(config_of(kind))
            getattr(transformers, CONFIGS[kind][0])(found).save_pretrained(made[kind])
        return made[kind]

    return get


def moved(folder, into, rename):
    """A copy of a model folder whose tensors have other names."""
    into.mkdir()
    (into / "config.json").write_bytes((folder / "config.json").read_bytes())
    tensors = load_file(folder / SINGLE)
    save_file({rename(name): x.clone() for name, x in tensors.items()}, into / SINGLE)
    return into


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_transformers_saves_has_the_names_of_the_class_and_nothing_is_lacking(folders, kind):
    parent = Checkpoint(at(folders(kind)))
    assert parent.tensors.keys() == load_file(folders(kind) / SINGLE).keys()
    facts = parent.architecture
    assert facts.lacking(parent.tensors) == []
    assert not [name for name in parent.tensors if facts.reason_to_drop(name, parent.tensors)]


def gemma3_modules(name):
    name = "model." + name.replace("language_model.model.", "language_model.")
    return name.replace("model.language_model.lm_head.", "lm_head.")


RENAMED = {
    "gpt2": [lambda n: n.removeprefix("transformer.")],  # uploads of 2019
    "bert": [
        lambda n: n.removeprefix("bert."),
        lambda n: n.replace("LayerNorm.weight", "LayerNorm.gamma"),  # TensorFlow's words
    ],
    "gemma3": [gemma3_modules],
    "llava": [gemma3_modules],
    "qwen2_vl": [
        lambda n: (
            f"model.{n}"
            if n.startswith("visual.")
            else n.replace("model.", "model.language_model.")
        )
    ],
}


@pytest.mark.parametrize(
    ("kind", "rename"), [(kind, rename) for kind, every in RENAMED.items() for rename in every]
)
def test_tensors_are_known_by_one_name_whatever_their_file_calls_them(
    folders, tmp_path, kind, rename
):
    whole = Checkpoint(at(folders(kind)))
    other = Checkpoint(at(moved(folders(kind), tmp_path / "other", rename)))
    assert load_file(tmp_path / "other" / SINGLE).keys() != whole.tensors.keys()
    assert other.tensors.keys() == whole.tensors.keys()
    assert other.digest == whole.digest
    for name in whole.tensors:
        assert other.tensor(name).equal(whole.tensor(name))


def test_names_that_lead_to_one_tensor_are_refused(folders, tmp_path):
    folder = moved(folders("gpt2"), tmp_path / "two", str)
    tensors = load_file(folder / SINGLE)
    save_file({**tensors, "h.0.ln_1.weight": torch.zeros(16)}, folder / SINGLE)
    with pytest.raises(
        CheckpointError,
        match=r"two: h.0.ln_1.weight and transformer.h.0.ln_1.weight are one tensor of the model "
        r"class, transformer.h.0.ln_1.weight; remove one$",
    ):
        _ = Checkpoint(at(folder)).tensors


def test_experts_under_other_names_keep_their_numbers(folders):
    config = config_of("mixtral")
    stored = model_class.read(config, "x").shapes
    experts = [name for name in stored if ".experts." in name]
    assert len(experts) == 2 * 12 * 3
    bare = [name.removeprefix("model.") for name in [*experts[:7], "model.norm.weight"]]
    found = model_class.stored_names(config, bare, "x", len(stored))
    assert found == {name: f"model.{name}" for name in bare}


STACKS = {
    "gpt2": [("default", "transformer.h")],
    "bert": [("default", "bert.encoder.layer")],
    "mixtral": [("default", "model.layers")],
    "gemma3": [
        ("language_model", "language_model.model.layers"),
        ("vision_tower", "vision_tower.encoder.layers"),
    ],
    "qwen2_vl": [("model", "model.layers"), ("visual", "visual.blocks")],
    "qwen2_5_vl": [("model", "model.layers"), ("visual", "visual.blocks")],
}


@pytest.mark.parametrize("kind", STACKS)
def test_lists_of_modules_are_the_stacks_and_other_numbers_are_parts_of_names(kind):
    facts = model_class.read(config_of(kind), kind)
    found = modules_of([*facts.shapes], facts.stacks)
    stacks = {module.name: module.layers for module in found if module.layers.stack}
    assert stacks == {name: Layers(stack, 2) for name, stack in STACKS[kind]}

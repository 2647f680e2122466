"""Foreign configs: one line that names the key, at once, and nothing large is made."""

import json
import resource
import time

import pytest

from merge_core.architecture import model_class
from merge_core.errors import CheckpointError
from merge_core.parents.weight_files import SINGLE

TENSORS = 21


def config_of(family, kind="llama-tied", **changes):
    return json.loads((family(kind) / "base" / "config.json").read_text()) | changes


def refused(config):
    with pytest.raises(CheckpointError) as caught:
        model_class.read(config, "folder", TENSORS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("bos_token_id", "1", "expected int, got str"),
        ("hidden_size", "x", "expected int, got str"),
        ("hidden_act", "nobody", "KeyError: "),
        ("rope_scaling", {"rope_type": "nobody", "rope_theta": 1.0}, "nobody"),
        ("rope_scaling", 7, "7"),
        ("layer_types", ["nobody"] * 4, "full_attention"),
        ("architectures", 7, "not iterable"),
        ("num_attention_heads", 3, "not a multiple"),
        ("vocab_size", -2, "negative"),
        ("id2label", {"x": 1}, "invalid literal"),
    ],
)
def test_error_names_the_key_and_has_the_whole_message_in_one_line(family, key, value, reason):
    text = refused(config_of(family, **{key: value}))
    assert text.startswith("folder: transformers makes no model of its config.json: ")
    assert key in text
    assert reason in text


def test_key_that_the_error_does_not_name_is_found_by_trying(family):
    text = refused(config_of(family, num_attention_heads=0))
    assert "num_attention_heads = 0: ZeroDivisionError: " in text


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {"num_hidden_layers": 10**9}),
        ("llama", {"num_hidden_layers": 9_999}),
        ("gemma3", {"num_hidden_layers": 10**9, "layer_types": None}),
        ("llama", {"num_labels": 10**9}),
        ("gpt2", {"n_layer": 10**9}),
        ("mixtral", {"num_local_experts": 10**9}),
        ("t5", {"num_decoder_layers": 10**9}),
    ],
)
def test_config_that_counts_far_more_than_the_folder_holds_is_refused_at_once(
    family, kind, changes
):
    model_class.read(config_of(family, kind), "folder")  # transformers is imported
    most, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    text = refused(config_of(family, kind, **changes))
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 200 * 2**10  # KiB
    assert next(iter(changes)) in text
    assert f"the folder has {TENSORS} tensors" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"pad_token_id": 10**6},
        {"attn_implementation": "flash_attention_2"},
        {"_attn_implementation": "nobody"},
        {"torch_dtype": "nobody"},
        {"dtype": 7},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"auto_map": {"AutoConfig": "code.Config"}},
    ],
)
def test_what_a_merge_does_not_need_is_not_asked_for(family, changes):
    wanted = model_class.read(config_of(family), "folder").shapes
    assert model_class.read(config_of(family, **changes), "folder").shapes == wanted


@pytest.mark.parametrize("key", ["pad_token_id", "attn_implementation"])
def test_live_model_needs_what_transformers_needs(planned, own_family, key):
    root = own_family()
    value = {"pad_token_id": 10**6, "attn_implementation": "flash_attention_2"}[key]
    for name in ("base", "one"):
        file = root / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    made = planned(
        "merge_method: slerp\nbase_model: base\nmodels: [{model: one}]\nparameters: {t: 0.5}",
        root=root,
    )
    with pytest.raises(CheckpointError, match=f"config.json: {key} = "):
        made.build()


def test_class_without_token_embeddings_has_no_vocabulary():
    from transformers import CLIPConfig

    part = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(text_config={**part, "vocab_size": 60}, vision_config=part)
    data = {**json.loads(config.to_json_string()), "architectures": ["CLIPModel"]}
    assert model_class.read(data, "folder").vocabulary == frozenset()


@pytest.mark.parametrize("form", [float("inf"), {"__float__": "Infinity"}])
def test_infinite_number_is_read_and_written_as_transformers_does(
    planned, own_family, tmp_path, form
):
    from transformers import AutoConfig

    root = own_family()
    for name in ("base", "one"):
        file = root / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"rms_norm_eps": form}))
    text = "merge_method: linear\nmodels: [{model: base, parameters: {weight: 1}}]"
    planned(text, root=root).write(tmp_path / "out")
    assert (tmp_path / "out" / SINGLE).is_file()
    written = (tmp_path / "out" / "config.json").read_text()
    assert json.loads(written, parse_constant=pytest.fail)["rms_norm_eps"] == {
        "__float__": "Infinity"
    }
    config = AutoConfig.from_pretrained(tmp_path / "out", trust_remote_code=False)
    assert config.rms_norm_eps == float("inf")

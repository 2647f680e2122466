"""Models without words, or with buffers that trainings move: merged, or refused in one line."""

import re

import pytest
import torch
import transformers

from merge_core import api
from merge_core.errors import NonFiniteError
from merge_core.plan.steps import COUNTER

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2}
PATCHES = {**SMALL, "image_size": 16, "patch_size": 8, "projection_dim": 8}
WORDS = {"vocab_size": 60, "max_position_embeddings": 16, "projection_dim": 8}
MODELS = {
    "CLIPModel": (
        "CLIPConfig",
        {
            "text_config": {**SMALL, **WORDS, "bos_token_id": 1, "eos_token_id": 2},
            "vision_config": PATCHES,
            "projection_dim": 8,
        },
    ),
    "Wav2Vec2ForCTC": (
        "Wav2Vec2Config",
        {**SMALL, "vocab_size": 20, "conv_dim": (8, 8), "conv_stride": (2, 2)}
        | {"conv_kernel": (3, 3), "num_feat_extract_layers": 2}
        | {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2},
    ),
    "SegformerForSemanticSegmentation": (
        "SegformerConfig",
        {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [8, 8]}
        | {"patch_sizes": [3, 3], "strides": [2, 2], "num_attention_heads": [1, 2]}
        | {"mlp_ratios": [2, 2], "decoder_hidden_size": 8},
    ),
    "ResNetForImageClassification": (
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"},
    ),
}
LINEAR = """
merge_method: linear
models: [{model: a, parameters: {weight: 0.25}}, {model: b, parameters: {weight: 0.75}}]
"""


def saved(name, root):
    """Two models of a class whose buffers are those of trainings of other lengths."""
    config, own = MODELS[name]
    found = []
    for seed, folder in enumerate("ab", start=1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = getattr(transformers, name)(getattr(transformers, config)(**own))
            for key, x in model.state_dict().items():
                if x.is_floating_point():
                    x.copy_(torch.rand_like(x) + 0.1)
                elif key.endswith(COUNTER):
                    x.fill_(seed)
        model.save_pretrained(root / folder)
        found.append({key: x.clone() for key, x in model.state_dict().items()})
    return found


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_buffers_are_merged_and_counters_of_trainings_taken_over(name, tmp_path):
    one, two = saved(name, tmp_path)
    said = []
    api.merge(LINEAR, tmp_path / "out", folder=tmp_path, tell=said.append)
    model, info = getattr(transformers, name).from_pretrained(
        tmp_path / "out", output_loading_info=True, trust_remote_code=False
    )
    assert not any(info.values())
    for key, x in model.state_dict().items():
        floats = x.is_floating_point()
        wanted = 0.25 * one[key] + 0.75 * two[key] if floats else one[key]
        assert torch.allclose(x, wanted, rtol=1e-6, atol=0), key
    count = sum(key.endswith(("running_mean", "running_var")) for key in one)
    words = f"statistics of batch norms are merged as weights are ({count} such), which is not what"
    assert [words in line for line in said] == ([True] if count else [])


def test_a_variance_below_zero_is_refused_by_its_name(tmp_path):
    saved("ResNetForImageClassification", tmp_path)
    recipe = LINEAR.replace("0.25", "-0.9") + "parameters: {normalize: false}\n"
    text = re.compile(r"running_var: 'linear': a variance is below 0, -\d.*choose weights within 0")
    with pytest.raises(NonFiniteError, match=text):
        api.merge(recipe, tmp_path / "out", folder=tmp_path, tell=print)
    assert not (tmp_path / "out").exists()

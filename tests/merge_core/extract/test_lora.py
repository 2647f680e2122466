"""Adapters that are extracted give the fine-tune back, as far as their rank reaches, in peft."""

import json
import math
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_core.errors import (
    CheckpointError,
    NonFiniteError,
    OutputExistsError,
    ParameterError,
    ShapeError,
)
from merge_core.extract.adapter_folder import RECORD, extract_lora
from merge_core.extract.lora import Asked
from merge_core.parents.lora_keys import CONFIG, WEIGHTS
from merge_core.parents.open import open_parents
from merge_core.parents.weight_files import SINGLE
from tests.merge_core.parents.adapters import merged, train

FULL = Asked(64)
KINDS = ("llama", "tied", "gpt2", "gpt2-untied", "biased")


def tuned(base, out, change):
    """A copy of a base whose tensors are what ``change`` makes of name and tensor."""
    shutil.copytree(base, out)
    stored = load_file(out / SINGLE)
    save_file({k: change(k, x) for k, x in stored.items()}, out / SINGLE, {"format": "pt"})
    return out


def noise(name, x):
    stream = torch.Generator().manual_seed(len(name))
    return x + 0.1 * torch.randn(x.shape, generator=stream)


def distance(a, b):
    return math.sqrt(sum(float(((a[k].double() - b[k].double()) ** 2).sum()) for k in b))


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_of_full_rank_gives_the_fine_tune_back_in_peft(bases, tmp_path, kind):
    model = tuned(bases[kind], tmp_path / "m", noise)
    told = extract_lora(str(model), str(bases[kind]), tmp_path / "a", FULL)
    found, wanted = merged(bases[kind], tmp_path / "a"), load_file(model / SINGLE)
    for name, tensor in wanted.items():
        name = name if name in found else f"transformer.{name}"
        assert (found[name] - tensor).abs().max() <= 2e-6, name
    assert told.relative < 1e-6
    assert told.left == {}
    assert bool(told.biases) == (kind in ("gpt2", "gpt2-untied", "biased"))


@pytest.mark.parametrize("kind", KINDS)
def test_our_reader_takes_the_adapter_as_peft_does(bases, tmp_path, kind):
    model = tuned(bases[kind], tmp_path / "m", noise)
    extract_lora(str(model), str(bases[kind]), tmp_path / "a", Asked(5))
    reference = f"{bases[kind]}+{tmp_path / 'a'}"
    (adapted,) = open_parents((reference,), (tmp_path,)).values()
    wanted = merged(bases[kind], tmp_path / "a")
    for name in adapted.tensors:
        assert (adapted.tensor(name).float() - wanted[name]).abs().max() <= 1e-6, name


def test_errors_are_the_singular_values_left_out_and_what_peft_s_merge_is_off(bases, tmp_path):
    base = load_file(bases["llama"] / SINGLE)
    model = tuned(bases["llama"], tmp_path / "m", noise)
    told = extract_lora(str(model), str(bases["llama"]), tmp_path / "a", Asked(3))
    wanted = load_file(model / SINGLE)
    assert {row["rank"] for row in told.modules} == {3}
    for row in told.modules:
        delta = wanted[f"{row['name']}.weight"].double() - base[f"{row['name']}.weight"].double()
        s = torch.linalg.svdvals(delta)
        assert row["error"] == pytest.approx(float(s[3:].norm()), rel=1e-5)
        assert row["norm"] == pytest.approx(float(s.norm()), rel=1e-6)
        assert row["relative"] == pytest.approx(row["error"] / row["norm"])
    found = merged(bases["llama"], tmp_path / "a")
    assert told.error == pytest.approx(distance(found, wanted), rel=1e-5)
    worst = max(float((found[k] - wanted[k]).abs().max()) for k in wanted)
    assert max(row["largest"] for row in told.modules) == pytest.approx(worst, rel=1e-4)
    assert json.loads((tmp_path / "a" / RECORD).read_text()) == told.plain()


def test_what_was_trained_as_a_lora_is_found_again_with_its_ranks(bases, tmp_path):
    options = {"target_modules": ["q_proj", "down_proj"], "r": 4, "rank_pattern": {"q_proj": 2}}
    lora = train(bases["llama"], tmp_path / "lora", **options)
    told = extract_lora(f"{bases['llama']}+{lora}", str(bases["llama"]), tmp_path / "a", Asked(4))
    assert {row["name"].rpartition(".")[2] for row in told.modules} == {"q_proj", "down_proj"}
    config = json.loads((tmp_path / "a" / CONFIG).read_text())
    assert config["target_modules"] == ["down_proj", "q_proj"]
    assert config["modules_to_save"] is None
    assert told.relative < 1e-6
    found, wanted = merged(bases["llama"], tmp_path / "a"), merged(bases["llama"], lora)
    assert all((found[name] - wanted[name]).abs().max() <= 2e-6 for name in wanted)


def test_layers_of_lower_rank_get_as_many_columns_as_they_need(bases, tmp_path):
    def change(name, x):
        if "layers.1.mlp.up_proj" in name:
            return x + torch.outer(torch.arange(x.shape[0]) / 64, torch.ones(x.shape[1]))
        return noise(name, x) if "layers.0.mlp" in name else x

    base = tuned(bases["llama"], tmp_path / "b", lambda _, x: (x * 64).round() / 64)
    model = tuned(base, tmp_path / "m", change)
    told = extract_lora(str(model), str(base), tmp_path / "a", Asked(6))
    assert [row["rank"] for row in told.modules] == [6, 6, 6, 1]
    config = json.loads((tmp_path / "a" / CONFIG).read_text())
    assert config["rank_pattern"] == config["alpha_pattern"] == {"model.layers.1.mlp.up_proj": 1}
    assert config["target_modules"] == [row["name"] for row in sorted_rows(told)]
    found = merged(base, tmp_path / "a")["model.layers.1.mlp.up_proj.weight"]
    assert (
        found - load_file(model / SINGLE)["model.layers.1.mlp.up_proj.weight"]
    ).abs().max() < 1e-6


def sorted_rows(told):
    return sorted(told.modules, key=lambda row: row["name"])


def test_norms_are_named_so_that_peft_takes_no_other_module(bases, tmp_path):
    def change(name, x):
        return noise(name, x) if name == "model.norm.weight" or "q_proj" in name else x

    model = tuned(bases["llama"], tmp_path / "m", change)
    told = extract_lora(str(model), str(bases["llama"]), tmp_path / "a", FULL)
    config = json.loads((tmp_path / "a" / CONFIG).read_text())
    assert told.whole == config["modules_to_save"] == ["model.norm"]
    wanted, found = load_file(model / SINGLE), merged(bases["llama"], tmp_path / "a")
    assert all((found[name] - wanted[name]).abs().max() <= 2e-6 for name in wanted)


def test_a_tied_embedding_is_given_to_the_head_as_well(bases, tmp_path):
    model = tuned(bases["tied"], tmp_path / "m", noise)
    told = extract_lora(str(model), str(bases["tied"]), tmp_path / "a", FULL)
    assert {"model.embed_tokens", "lm_head"} <= {*told.whole}
    keys = load_file(tmp_path / "a" / WEIGHTS)
    embedding = load_file(model / SINGLE)["model.embed_tokens.weight"]
    for name in ("model.embed_tokens", "lm_head"):
        assert keys[f"base_model.model.{name}.weight"].equal(embedding)


def test_what_is_excluded_stays_the_base_s_and_counts_as_error(bases, tmp_path):
    model = tuned(bases["llama"], tmp_path / "m", noise)
    asked = Asked(64, exclude=("mlp", "embed", "lm_head"))
    told = extract_lora(str(model), str(bases["llama"]), tmp_path / "a", asked)
    assert {facts["why"] for facts in told.left.values()} == {"excluded"}
    assert not any("mlp" in row["name"] for row in told.modules)
    wanted, base = load_file(model / SINGLE), load_file(bases["llama"] / SINGLE)
    found = merged(bases["llama"], tmp_path / "a")
    assert told.error == pytest.approx(distance(found, wanted), rel=1e-5)
    left = {name: base[name] for name in told.left}
    assert all(found[name].equal(left[name]) for name in left)
    assert told.error == pytest.approx(distance(wanted, left), rel=1e-5)


def test_experts_that_are_fused_in_memory_stay_the_base_s_and_are_said(tmp_path):
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 2}
    MixtralForCausalLM(MixtralConfig(**sizes, **heads)).save_pretrained(tmp_path / "b")
    model = tuned(tmp_path / "b", tmp_path / "m", noise)
    told = extract_lora(str(model), str(tmp_path / "b"), tmp_path / "a", FULL)
    wanted, base = load_file(model / SINGLE), load_file(tmp_path / "b" / SINGLE)
    experts = {name for name in wanted if ".experts." in name}
    assert told.left.keys() == experts
    assert {facts["why"] for facts in told.left.values()} == {"peft has no module for it"}
    assert "model.layers.0.mlp.gate" in told.whole
    assert told.error == pytest.approx(distance(wanted, {x: base[x] for x in experts}), rel=1e-5)
    (adapted,) = open_parents((f"{tmp_path / 'b'}+{tmp_path / 'a'}",), (tmp_path,)).values()
    for name, tensor in wanted.items():
        expected = base[name] if name in experts else tensor
        assert (adapted.tensor(name).float() - expected).abs().max() <= 2e-6, name


def test_rounding_of_the_factors_is_part_of_the_error(bases, tmp_path):
    model = tuned(bases["llama"], tmp_path / "m", noise)
    told = extract_lora(str(model), str(bases["llama"]), tmp_path / "a", Asked(64, "bfloat16"))
    assert (
        load_file(tmp_path / "a" / WEIGHTS)[
            "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
        ].dtype
        == torch.bfloat16
    )
    assert 1e-4 < told.relative < 1e-2
    wanted = load_file(model / SINGLE)
    assert told.error == pytest.approx(
        distance(merged(bases["llama"], tmp_path / "a"), wanted), rel=1e-2
    )


def test_progress_ends_with_all_that_is_to_be_done(bases, tmp_path):
    seen = []
    model = tuned(bases["llama"], tmp_path / "m", noise)
    told = lambda done, every: seen.append((done, every))  # noqa: E731
    extract_lora(str(model), str(bases["llama"]), tmp_path / "a", Asked(2), progress=told)
    assert seen[-1][0] == seen[-1][1] > 0


def refused(error, rule, *given, **more):
    with pytest.raises(error, match=re.escape(rule)) as told:
        extract_lora(*given, **more)
    assert "\n" not in str(told.value)


def test_models_that_are_no_model_and_its_base_are_refused_in_a_line(bases, tmp_path):
    out, base = tmp_path / "a", str(bases["llama"])
    refused(CheckpointError, "expected a model and the base", str(bases["gpt2"]), base, out, FULL)
    refused(CheckpointError, "there is nothing to extract", base, base, out, FULL)
    model = tuned(bases["llama"], tmp_path / "m", lambda _, x: x * math.nan)
    refused(NonFiniteError, "mend the model", str(model), base, out, FULL)
    assert not out.exists()


def test_another_vocabulary_is_refused_with_what_to_do(bases, tmp_path):
    model = tuned(
        bases["llama"],
        tmp_path / "m",
        lambda k, x: torch.cat([x, x[:2]]) if "embed" in k or "lm_head" in k else x,
    )
    config = json.loads((model / "config.json").read_text())
    config["vocab_size"] += 2
    (model / "config.json").write_text(json.dumps(config))
    rule = f"`mergetune tokensurgeon {model} {bases['llama']} OUT`"
    refused(ShapeError, rule, str(model), str(bases["llama"]), tmp_path / "a", FULL)


def test_wrong_numbers_and_taken_folders_are_refused(bases, tmp_path):
    with pytest.raises(ParameterError, match="rank: expected at least 1, got 0"):
        Asked(0)
    with pytest.raises(ParameterError, match="float32 or bfloat16 or float16, got 'int8'"):
        Asked(4, "int8")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").write_text("x")
    given = (str(bases["llama"]), str(bases["llama"]), tmp_path / "a", FULL)
    refused(OutputExistsError, "exists; choose another place", *given)
    refused(OutputExistsError, "extract-lora did not write it", *given, overwrite=True)
    assert (tmp_path / "a" / "mine").read_text() == "x"


def test_its_own_folder_is_replaced_where_asked(bases, tmp_path):
    model = str(tuned(bases["llama"], tmp_path / "m", noise))
    for rank in (2, 3):
        extract_lora(model, str(bases["llama"]), tmp_path / "a", Asked(rank), overwrite=True)
    assert json.loads((tmp_path / "a" / CONFIG).read_text())["r"] == 3

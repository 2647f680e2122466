"""Recipes whose models are ``path+adapter``: merged live and on disk, recorded, and refused."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from merge_core import api
from merge_core.api import merge, planned
from merge_core.errors import CheckpointError, MergeError
from merge_core.merge import nested
from merge_core.merge.statistics_cache import OF_A_NAME
from merge_core.output.live_model import Candidate
from merge_core.parents import lora
from merge_core.parents.weight_files import SINGLE

TARGET = "model.layers.{}.self_attn.q_proj"
RECIPE = """
merge_method: ties
base_model: base
models:
  - {model: base+small, parameters: {weight: 0.5}}
  - {model: {model: {path: base}, lora: {path: large}}, parameters: {weight: 0.8}}
parameters: {density: 0.5}
dtype: bfloat16
"""


def adapter(folder, rank, alpha=8, width=16):
    """Write a LoRA adapter for the query projections of a tiny Llama."""
    folder.mkdir()
    stream = torch.Generator().manual_seed(rank)
    tensors = {}
    for i in range(4):
        key = f"base_model.model.{TARGET.format(i)}"
        tensors[f"{key}.lora_A.weight"] = torch.randn(rank, width, generator=stream)
        tensors[f"{key}.lora_B.weight"] = torch.randn(16, rank, generator=stream)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return tensors


@pytest.fixture
def root(own_family):
    folder = own_family("llama")
    adapter(folder / "small", 2)
    adapter(folder / "large", 5)
    (folder / "r.yaml").write_text(RECIPE)
    return folder


def full_copy(root, name, rank, alpha=8):
    """The adapter merged into a copy of the base, in float64."""
    stored = load_file(root / "base" / SINGLE)
    parts = load_file(root / name / "adapter_model.safetensors")
    for i in range(4):
        key = f"base_model.model.{TARGET.format(i)}"
        a, b = (parts[f"{key}.lora_{x}.weight"].double() for x in "AB")
        weight = stored[f"{TARGET.format(i)}.weight"].double() + alpha / rank * (b @ a)
        stored[f"{TARGET.format(i)}.weight"] = weight.float()
    return stored


def test_adapters_of_different_ranks_merge_as_full_copies_do(root, tmp_path):
    for name, rank in (("small", 2), ("large", 5)):
        (root / f"full-{name}").mkdir()
        (root / f"full-{name}" / "config.json").write_bytes(
            (root / "base/config.json").read_bytes()
        )
        save_file(full_copy(root, name, rank), root / f"full-{name}" / SINGLE)
    text = RECIPE.replace("dtype: bfloat16", "dtype: float32")
    (root / "r.yaml").write_text(text)
    mapping = "{model: {path: base}, lora: {path: large}}"
    full = text.replace("base+small", "full-small").replace(mapping, "full-large")
    (root / "full.yaml").write_text(full)
    merge(root / "r.yaml", tmp_path / "a")
    merge(root / "full.yaml", tmp_path / "b")
    a, b = (load_file(tmp_path / x / SINGLE) for x in "ab")
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        # trims at the threshold may differ where the two roundings of a sum do: none here
        torch.testing.assert_close(tensor, b[name], rtol=1e-5, atol=1e-6)


def test_candidate_is_the_exported_folder_and_nothing_is_written_beside_it(root, tmp_path):
    before = sorted(root.rglob("*"))
    digest = merge(root / "r.yaml", tmp_path / "out")
    assert Candidate().build(planned(root / "r.yaml")) == digest
    assert sorted(root.rglob("*")) == before


def test_recorded_recipe_names_the_adapters_and_merges_to_the_same(root, tmp_path):
    digest = merge(root / "r.yaml", tmp_path / "out")
    recipe = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())
    names = [source["model"] for source in recipe["models"]]
    assert all("+" in name for name in names)
    assert merge(tmp_path / "out" / "recipe.yaml", tmp_path / "again") == digest
    record = json.loads((tmp_path / "out" / "mergetune.json").read_text())
    assert len(set(record["parents"].values())) == 3


def refused(root, error, match):
    with pytest.raises(error, match=match):
        merge(root / "r.yaml", root / "out")
    assert not list(root.glob("*out*"))


def test_adapter_for_another_base_is_refused_before_anything_is_written(root):
    (root / "small" / "adapter_model.safetensors").unlink()
    (root / "small" / "adapter_config.json").unlink()
    (root / "small").rmdir()
    adapter(root / "small", 2, width=24)
    refused(root, MergeError, r"^model.layers.0.*: base is \(16, 16\), base\+small has A")


def test_adapter_folder_that_is_not_there_is_refused(root):
    (root / "r.yaml").write_text(RECIPE.replace("base+small", "base+./nowhere"))
    refused(root, CheckpointError, r"^model './nowhere': no such folder in ")


def sums(monkeypatch):
    """Which products are made, by the shapes of their factors."""
    made, usual = [], lora.low_rank_sum

    def noted(weight, left, right, scale):
        made.append((*left.shape, *right.shape))
        return usual(weight, left, right, scale)

    monkeypatch.setattr(lora, "low_rank_sum", noted)
    return made


ADDED = RECIPE.replace("ties", "task_arithmetic").replace("{density: 0.5}", "{}")
WHOLE = RECIPE.replace("{density: 0.5}", "{density: 0.5, trim: global}")


@pytest.mark.parametrize(
    ("text", "room", "first", "again"),
    [
        (RECIPE, 2**30, 8, 0),
        (WHOLE, 2**30, 8, 0),
        (ADDED, 5 * (16 * 16 * 4 + OF_A_NAME), 8, 3),
        (ADDED, 0, 8, 8),
    ],
    ids=["tensor", "global", "room for five", "no room"],
)
def test_study_makes_each_product_once_as_far_as_there_is_room(
    root, monkeypatch, text, room, first, again
):
    made, candidate, counts = sums(monkeypatch), Candidate(room=room), []
    (root / "r.yaml").write_text(text)
    plan, digests = planned(root / "r.yaml"), []
    for weight in (0.5, 0.6, 0.7):
        (root / "r.yaml").write_text(text.replace("weight: 0.5", f"weight: {weight}"))
        reading, _ = api.read(root / "r.yaml", None)
        made.clear()
        digests.append(candidate.build(nested.plan(reading.recipe, plan.opened)))
        counts.append(len(made))
    assert counts == [first, again, again]
    assert digests[-1] == Candidate(room=0).build(planned(root / "r.yaml"))
    assert len(set(digests)) == 3

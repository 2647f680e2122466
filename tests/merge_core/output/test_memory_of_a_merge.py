"""A merge holds the pages of the tensor that it is at, not those of its parents."""

from __future__ import annotations

import pytest
import torch

from merge_core import api
from merge_core.merge.execute import Execution
from merge_core.parents.digests import begun
from merge_core.parents.open import open_parents
from tests.merge_core.places import mapped_bytes

PARENTS = ("one", "two", "three")
DARE = """
merge_method: dare_ties
base_model: one
models:
- {model: two, parameters: {weight: 0.5, density: 0.5}}
- {model: three, parameters: {weight: 0.5, density: 0.5}}
"""
GLOBAL = DARE.replace("dare_ties", "ties") + "parameters: {trim: global}\n"
LINEAR = "\nmerge_method: linear\nmodels:\n" + "".join(
    f"- {{model: {name}, parameters: {{weight: 0.3}}}}\n" for name in PARENTS
)


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    from transformers import LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("parents")
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
    )
    for seed, name in enumerate(PARENTS):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).bfloat16().save_pretrained(root / name)
    return root


def mapped(parents):
    return sum(mapped_bytes(parents / name / "model.safetensors") for name in PARENTS)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [LINEAR, GLOBAL, DARE], ids=["linear", "global", "dare"])
def test_pages_of_parents_are_in_memory_one_tensor_at_a_time(
    parents, tmp_path, monkeypatch, recipe
):
    seen = []
    before = Execution.carry_out

    def carry_out(self, step, out=None):
        made = before(self, step, out)
        seen.append(mapped(parents))
        return made

    monkeypatch.setattr(Execution, "carry_out", carry_out)
    api.merge(recipe, tmp_path / "out", folder=parents)
    size = sum((parents / name / "model.safetensors").stat().st_size for name in PARENTS)
    assert 0 < max(seen) < size / 3
    assert mapped(parents) < size / 10


def test_digests_are_known_after_they_are_waited_for_and_leave_no_pages(parents):
    opened = open_parents(PARENTS, [parents])
    begun(opened.values())()
    assert mapped(parents) == 0
    assert len({parent._seen.digest for parent in opened.values()}) == 3

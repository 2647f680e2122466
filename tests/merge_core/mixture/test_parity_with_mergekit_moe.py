"""Against mergekit-moe 0.1.5 as a program: all tensors, as transformers loads them."""

from __future__ import annotations

import pytest
import yaml

from tests.merge_core.mixture.mixtures import SHARED, expert, mixture

pytestmark = pytest.mark.filterwarnings("ignore")

SCALED = (expert("one"), expert("two", negative_prompts=["add", "no"]), "three")
CASES = [
    ("llama", {}),
    ("llama-tied", {}),
    ("mistral", {}),
    ("qwen2", {"shared_experts": SHARED}),
    ("qwen3", {}),
]


@pytest.fixture
def mergekit_moe(tmp_path):
    pytest.importorskip("mergekit", reason="the oracle is a development dependency")
    from mergekit.moe.config import MoEMergeConfig
    from mergekit.options import MergeOptions
    from mergekit.scripts.moe import build

    def run(data, root):
        text = yaml.safe_dump(data)
        for name in ("base", "one", "two", "three"):
            text = text.replace(f"source_model: {name}\n", f"source_model: {root / name}\n")
        text = text.replace("base_model: base\n", f"base_model: {root / 'base'}\n")
        config = MoEMergeConfig.model_validate(yaml.safe_load(text))
        out = tmp_path / "mergekit"
        build(config, str(out), MergeOptions(copy_tokenizer=False, quiet=True), device="cpu")
        return out

    return run


def loaded(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", ["hidden", "cheap_embed"])
@pytest.mark.parametrize(("kind", "keys"), CASES)
def test_tensors_are_those_of_mergekit_moe_to_the_last_bit(
    mixed, mergekit_moe, family, tmp_path, kind, keys, mode, dtype
):
    data = mixture(*SCALED, gate_mode=mode, dtype=dtype, **keys)
    mixed(data, kind).write(tmp_path / "ours")
    ours = loaded(tmp_path / "ours").state_dict()
    theirs = loaded(mergekit_moe(data, family(kind))).state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


def test_scaled_experts_are_those_of_mergekit_moe(mixed, mergekit_moe, family, tmp_path):
    scaled = expert("one", residual_scale=0.25)
    data = mixture(scaled, "two", gate_mode="cheap_embed", dtype="float32")
    mixed(data).write(tmp_path / "ours")
    ours = loaded(tmp_path / "ours").state_dict()
    theirs = loaded(mergekit_moe(data, family("llama"))).state_dict()
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


def test_llama_under_qwens_class_lacks_only_the_zeros_that_mergekit_writes(
    mixed, mergekit_moe, family, tmp_path
):
    data = mixture(gate_mode="hidden", dtype="float32", shared_experts=SHARED)
    mixed(data).write(tmp_path / "ours")
    ours = loaded(tmp_path / "ours").state_dict()
    theirs = loaded(mergekit_moe(data, family("llama"))).state_dict()
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []
    extra = theirs.keys() - ours.keys()
    assert len(extra) == 12
    assert not any(theirs[name].any() for name in extra)


def test_prompts_of_equal_length_are_averaged_as_by_mergekit(mixed, mergekit_moe, family, tmp_path):
    experts = [
        {"source_model": "one", "positive_prompts": ["add", "sum"]},
        {"source_model": "two", "positive_prompts": ["sort"]},
    ]
    data = mixture(*experts, gate_mode="hidden_avg", dtype="float32")
    mixed(data).write(tmp_path / "ours")
    ours = loaded(tmp_path / "ours").state_dict()
    theirs = loaded(mergekit_moe(data, family("llama"))).state_dict()
    for name, one in ours.items():
        assert (one - theirs[name]).abs().max() < (0.02 if ".gate." in name else 1e-9)


@pytest.mark.parametrize("mode", ["random", "uniform_random"])
def test_all_but_drawn_routers_are_those_of_mergekit_moe(
    mixed, mergekit_moe, family, tmp_path, mode
):
    data = mixture(gate_mode=mode, dtype="float32")
    mixed(data).write(tmp_path / "ours")
    ours = loaded(tmp_path / "ours").state_dict()
    theirs = loaded(mergekit_moe(data, family("llama"))).state_dict()
    differing = [name for name in ours if not ours[name].equal(theirs[name])]
    assert len(differing) == 4
    assert all(name.endswith("mlp.gate.weight") for name in differing)
    drawn = [x[name].std() for name in differing for x in (ours, theirs)]
    assert all(abs(s - (1 if mode == "random" else 0.144)) < 0.3 * s for s in drawn)

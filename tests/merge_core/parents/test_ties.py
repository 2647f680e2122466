"""Heads that are tied to the embedding, stored beside it with other values, or missing."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from merge_core.output.live_model import Candidate
from merge_core.parents.weight_files import SINGLE
from tests.merge_core import tiny_classes
from tests.merge_core.conftest import change

HEAD, EMBEDDING, NORM = "lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"
MIXED = """
merge_method: linear
models:
  - {model: base, parameters: {weight: 0.25}}
  - {model: one, parameters: {weight: 0.75}}
dtype: float32
"""
TASK = """
merge_method: task_arithmetic
base_model: base
models: [{model: one, parameters: {weight: 0.5}}]
dtype: float32
"""
STACKED = """
merge_method: passthrough
slices:
  - sources: [{model: base, layer_range: [0, 2]}]
  - sources: [{model: one, layer_range: [2, 4]}]
"""


def stored(root, name):
    return load_file(root / name / SINGLE)


def other_head(root, *names, seed=0, untie=False):
    """Give models a head of their own; their config says so or goes on saying that it is tied."""
    stream = torch.Generator().manual_seed(seed)
    for name in names:
        shape = stored(root, name)[EMBEDDING].shape
        change(root / name, lm_head__weight=torch.randn(shape, generator=stream))
        file = root / name / "config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps(config | {"tie_word_embeddings": not untie}))
    return root


def written(made, out):
    """Write a folder that is the live model and loads whole; return its weights."""
    digest, model = made.build()
    assert made.write(out) == digest
    (name,) = made.plan.config["architectures"]
    loaded, info = getattr(transformers, name).from_pretrained(
        out, output_loading_info=True, trust_remote_code=False
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    there = loaded.state_dict()
    assert all(tensor.equal(there[key]) for key, tensor in model.state_dict().items())
    return there


def head_of(root, name):
    tensors = stored(root, name)
    return tensors.get(HEAD, tensors[EMBEDDING])


@pytest.mark.parametrize("untied", [["one"], ["base"]])
@pytest.mark.parametrize("untie", [True, False], ids=["config untied", "config tied"])
@pytest.mark.parametrize("text", [MIXED, TASK], ids=["linear", "task arithmetic"])
def test_embedding_stands_for_the_head_that_a_tied_parent_lacks(
    planned, own_family, tmp_path, untied, untie, text
):
    root = other_head(own_family(), *untied, untie=untie)
    made = planned(text, root=root)
    assert made.plan.config["tie_word_embeddings"] is False
    found = written(made, tmp_path / "out")
    a, b = (head_of(root, name) for name in ("base", "one"))
    wanted = 0.25 * a + 0.75 * b if text == MIXED else a + 0.5 * (b - a)
    assert torch.allclose(found[HEAD], wanted, atol=1e-6)
    assert not found[HEAD].equal(found[EMBEDDING])


def test_heads_other_than_the_embedding_that_the_config_ties_are_kept(
    planned, own_family, tmp_path
):
    root = other_head(own_family(), "base", "one")
    made = planned(MIXED, root=root)
    assert HEAD not in made.plan.dropped
    wanted = 0.25 * head_of(root, "base") + 0.75 * head_of(root, "one")
    assert torch.allclose(written(made, tmp_path / "out")[HEAD], wanted, atol=1e-6)


def test_heads_equal_to_the_embedding_stay_tied(planned, own_family, tmp_path):
    root = own_family()
    for name in ("base", "one"):
        change(root / name, lm_head__weight=stored(root, name)[EMBEDDING].clone())
    made = planned(MIXED, root=root)
    assert made.plan.dropped == {HEAD: f"tied to {EMBEDDING}"}
    assert made.plan.config["tie_word_embeddings"] is True
    written(made, tmp_path / "out")
    assert HEAD not in load_file(tmp_path / "out" / SINGLE)


def test_head_stands_for_the_embedding_that_a_tied_parent_lacks(planned, own_family, tmp_path):
    wanted = written(planned(MIXED, root=own_family()), tmp_path / "before")
    root = tmp_path / "llama-tied"
    embedding = stored(root, "one")[EMBEDDING].clone()
    change(root / "one", lm_head__weight=embedding, model__embed_tokens__weight=None)
    found = written(planned(MIXED, root=root), tmp_path / "after")
    assert found[EMBEDDING].equal(wanted[EMBEDDING])


def test_stacks_of_tied_and_untied_models_have_the_head_of_the_last_one(
    planned, own_family, tmp_path
):
    root = other_head(own_family(), "base", untie=True)
    found = written(planned(STACKED, root=root), tmp_path / "out")
    assert found[EMBEDDING].equal(stored(root, "base")[EMBEDDING])
    assert found[HEAD].equal(stored(root, "one")[EMBEDDING])


def test_class_that_ties_whatever_its_config_says_is_untied_by_the_values(planned, tmp_path):
    for seed, name in enumerate(("base", "one")):
        tiny_classes.save("t5", tmp_path / name, seed)
    stream = torch.Generator().manual_seed(0)
    change(tmp_path / "one", lm_head__weight=torch.randn((60, 16), generator=stream))
    made = planned(MIXED, root=tmp_path)
    assert made.plan.config == made.parents["base"].config  # T5 reads another thing from the key
    found = written(made, tmp_path / "out")
    shared = stored(tmp_path, "base")["shared.weight"]
    wanted = 0.25 * shared + 0.75 * stored(tmp_path, "one")[HEAD]
    assert torch.allclose(found[HEAD], wanted, atol=1e-6)
    assert not found[HEAD].equal(found["shared.weight"])


def test_candidates_of_one_study_share_the_untied_parents(planned, own_family):
    root = other_head(own_family(), "one")
    made = planned(MIXED, root=root).plan
    again = planned(MIXED, root=root).plan
    assert made.parents["base"] is not again.parents["base"]  # opened anew
    parents = made.opened
    assert parents["base"].views.popitem()[1] is made.parents["base"]
    assert made.parents["base"].digest == parents["base"].digest


def test_live_model_is_made_anew_where_one_recipe_ties_and_the_next_does_not(planned, own_family):
    root = other_head(own_family(), "one", untie=True)
    candidate, alone = (
        Candidate(),
        planned(
            "merge_method: linear\nmodels: [{model: base, parameters: {weight: 1}}]", root=root
        ).plan,
    )
    first = candidate.build(alone)
    assert candidate.model.lm_head.weight is candidate.model.model.embed_tokens.weight
    candidate.build(planned(MIXED, root=root).plan)
    assert candidate.model.lm_head.weight is not candidate.model.model.embed_tokens.weight
    assert candidate.build(alone) == first

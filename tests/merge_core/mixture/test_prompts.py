"""Vectors of prompts against transformers in float32, one prompt at a time and without padding."""

from __future__ import annotations

import shutil

import pytest
import torch

from merge_core.errors import CheckpointError, ParameterError
from merge_core.merge.nested import plan
from merge_core.mixture import prompts
from merge_core.mixture.prompts import vectors
from merge_core.output.model_folder import write
from merge_core.parents.open import open_parents
from merge_core.recipe.read import parse
from tests.merge_core.conftest import change
from tests.merge_core.parents.adapters import train

POSITIVE, NEGATIVE = ("add 1+2 and 3", "plus"), ("sort bca",)


@pytest.fixture
def base(family):
    return open_parents(["base"], [family("llama")])["base"]


def states(folder, text):
    """The hidden states that go into each layer, ``(layers, tokens, hidden)``."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(f"<bos>{text}", return_tensors="pt")["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        found = model(ids, output_hidden_states=True).hidden_states
    return torch.cat(found[:-1]), ids[0]


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("mode", ["hidden", "hidden_avg"])
@pytest.mark.parametrize("negative", [(), NEGATIVE])
def test_hidden_states_are_those_of_each_prompt_alone(base, mode, negative):
    def mean(texts):
        found = [states(base.folder, text)[0] for text in texts]
        rows = [x[:, -1] if mode == "hidden" else x.mean(dim=1) for x in found]
        return torch.stack(rows).mean(dim=0)

    wanted = mean(POSITIVE) - (mean(negative) if negative else 0)
    (made,) = vectors(base, [(mode, POSITIVE, negative)], 4)
    assert made.shape == (4, 16)
    assert torch.allclose(made.float().norm(dim=-1), torch.ones(4), atol=0.01)
    assert (unit(made.float()) * unit(wanted)).sum(dim=-1).min() > 0.999  # it reads in bfloat16


def test_embeddings_are_summed_over_all_tokens_and_the_same_in_all_layers(base):
    table = base.tensor("model.embed_tokens.weight")

    def total(texts):
        ids = torch.cat([states(base.folder, text)[1] for text in texts])
        return unit(table[ids].sum(dim=0))

    (made,) = vectors(base, [("cheap_embed", POSITIVE, NEGATIVE)], 3)
    assert torch.allclose(made, unit(total(POSITIVE) - total(NEGATIVE)).expand(3, -1), atol=1e-6)


def test_padding_changes_no_average(base):
    key = [("hidden_avg", (text,), ()) for text in POSITIVE]
    alone = [x.float() for x in vectors(base, key, 4)]
    (both,) = vectors(base, [("hidden_avg", POSITIVE, ())], 4)
    lengths = [states(base.folder, text)[0].mean(dim=1).norm(dim=-1) for text in POSITIVE]
    wanted = sum(x * n[:, None] for x, n in zip(alone, lengths, strict=True))
    assert (unit(wanted) * unit(both.float())).sum(dim=-1).min() > 0.999


def test_prompts_are_read_once_as_long_as_the_parent_is_open(base, monkeypatch):
    loads = []
    load = prompts._loaded
    monkeypatch.setattr(prompts, "_loaded", lambda parent: loads.append(parent) or load(parent))
    keys = [("hidden", POSITIVE, NEGATIVE), ("hidden", ("no",), ())]
    first = vectors(base, keys, 4)
    again = vectors(base, keys[::-1], 4)
    assert [x is y for x, y in zip(first, again[::-1], strict=True)] == [True, True]
    assert loads == [base]


def test_one_thread_reads_prompts_so_that_their_number_changes_nothing(base, monkeypatch):
    threads = []
    load = prompts._loaded

    def seen(parent):
        threads.append(torch.get_num_threads())
        return load(parent)

    monkeypatch.setattr(prompts, "_loaded", seen)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        vectors(base, [("hidden", ("threads",), ())], 4)
    finally:
        torch.set_num_threads(before)
    assert threads == [1]


def test_adapted_and_merged_bases_read_with_their_own_weights(own_family):
    root = own_family("llama")
    train(root / "base", root / "tuned", target_modules=["up_proj"], r=4)
    shutil.rmtree(root / "one")
    recipe = parse({"merge_method": "passthrough", "models": [{"model": "base+tuned"}]}, "", [])
    write(plan(recipe, open_parents(["base+tuned"], [root])), root / "one")
    parents = open_parents(["base", "base+tuned", "one"], [root])
    key = [("hidden", POSITIVE, ())]
    plain, adapted, folder = (vectors(parents[name], key, 4)[0] for name in parents)
    assert adapted.equal(folder)
    assert not adapted.equal(plain)


def test_prompt_without_a_token_is_named(own_family, monkeypatch):
    base = open_parents(["base"], [own_family("llama")])["base"]

    class Mute:
        bos_token = None

        def __call__(self, text, add_special_tokens):
            return {"input_ids": []}

    monkeypatch.setattr(prompts.parent_tokenizer, "load", lambda folder: Mute())
    with pytest.raises(ParameterError) as caught:
        vectors(base, [("hidden", ("x",), ())], 4)
    assert "makes no token of the prompt 'x'" in str(caught.value)


def test_tokenizer_with_more_tokens_than_rows_is_named(own_family):
    root = own_family("llama")
    base = open_parents(["base"], [root])["base"]
    table = base.tensor("model.embed_tokens.weight")[:10].clone()
    config = (
        (root / "base" / "config.json").read_text().replace('"vocab_size": 55', '"vocab_size": 10')
    )
    (root / "base" / "config.json").write_text(config)
    change(root / "base", model__embed_tokens__weight=table, lm_head__weight=table.clone())
    with pytest.raises(CheckpointError) as caught:
        vectors(open_parents(["base"], [root])["base"], [("cheap_embed", ("zz",), ())], 4)
    assert "its tokenizer gives ids up to 39, its embedding has 10 rows" in str(caught.value)

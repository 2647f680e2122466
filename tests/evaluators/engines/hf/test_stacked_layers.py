"""Stacked candidates with scaled inputs, run by the engine: what plain forward passes give."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from evaluators.engines.hf.activations import layers_run_again
from evaluators.engines.hf.engine import live_model
from evaluators.target import Choice, Target
from merge_core.merge.nested import plan
from merge_core.output.live_model import Candidate
from merge_core.parents.open import open_parents
from merge_core.recipe.schema import Recipe, Slice, Source

PATH = [("base", 0, 1.0), ("one", 1, 0.5), ("base", 2, 1.25), ("one", 1, 1.75), ("base", 2, -0.8)]
START = "abcdabcdabcdabcdabcd"  # long enough to be read once for all
PROMPTS = [f"{START}{x}{'ab' * i}" for i, x in enumerate("abcdef")]
PAIRS = [(prompt, answer) for prompt in PROMPTS for answer in ("a", "bc", "dad")]


@pytest.fixture(params=["llama", "gpt-neox", "qwen3", "mixtral"])
def stacked(request, family):
    """The engine of a stack, and its model."""
    from transformers import AutoTokenizer

    root = family(request.param)
    slices = tuple(Slice((Source(m, (), (i, i + 1)),), None, (), x) for m, i, x in PATH)
    recipe = Recipe("passthrough", slices=slices, base_model="base")
    candidate = Candidate()
    candidate.build(plan(recipe, open_parents(recipe.references(), [root])))
    tokenizer = AutoTokenizer.from_pretrained(root / "base")
    return live_model(candidate.model, tokenizer, batch_size=4)


def plain(live):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=live.model, tokenizer=live.tokenizer, batch_size=4)


def test_scores_and_answers_are_those_of_plain_hflm(stacked):
    theirs = plain(stacked)
    assert stacked.engine._forward.works(), "it is read in steps"
    ours = stacked.engine.loglikelihood(PAIRS)
    found = theirs.loglikelihood([SimpleNamespace(args=x) for x in PAIRS], True)
    assert [nats for nats, _ in ours] == pytest.approx([x for x, _ in found], rel=5e-7, abs=4e-5)
    how = {"until": ["f"], "max_gen_toks": 6, "do_sample": False, "temperature": 0.0}
    asked = [(prompt, how) for prompt in PROMPTS]
    answers = theirs.generate_until([SimpleNamespace(args=x) for x in asked], True)
    assert stacked.engine.generate_until(asked) == answers


def test_losses_are_the_negative_scores_of_plain_hflm(stacked):
    targets = [Target((Choice((pair,), size=1.0),)) for pair in PAIRS]
    found = plain(stacked).loglikelihood([SimpleNamespace(args=x) for x in PAIRS], True)
    theirs = pytest.approx([-nats for nats, _ in found], rel=5e-7, abs=4e-5)
    assert stacked.engine.losses(targets) == theirs


def test_layers_that_are_run_again_scale_their_inputs_once(stacked):
    model = stacked.model
    ids = torch.tensor([[5, 9, 20, 11, 7, 3, 3, 18]])
    weight = model.get_input_embeddings().weight.requires_grad_(True)
    found = []
    for how in (nullcontext(), layers_run_again(model)):
        weight.grad = None
        with how:
            logits = model(ids).logits
            logits.sum().backward()
        found.append((logits.detach(), weight.grad))
    weight.requires_grad_(False)
    weight.grad = None
    assert found[0][0].equal(found[1][0])
    assert found[0][1].equal(found[1][1])

"""Stacks of layers against mergekit 0.1.5 as a program: every tensor, to the last bit.

Nothing is computed but products with one number. Left out, beside what
``test_parity_with_mergekit`` leaves out:

- Classes whose config lists a kind for each layer (see ``test_drawn_parity_with_mergekit``).
- Mixtral, which mergekit writes under the names of transformers' own weights, not of its files.
- Buffers that no class has stored since 2023, which mergekit wants of GPT-NeoX.
"""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning")

KINDS = ("llama", "llama-tied", "mistral", "phi3", "pythia", "gpt2")
ENDS = {  # what writes to the residual stream
    "pythia": ("attention.dense", "dense_4h_to_h"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
}
BUFFERS = (".attention.bias", ".masked_bias", ".rotary_emb.inv_freq")


def scaled(kind, numbers, rest):
    cases = zip(ENDS.get(kind, ("o_proj", "down_proj")), numbers, strict=True)
    rules = [f"{{filter: {end}, value: {number}}}" for end, number in cases]
    return f"parameters: {{scale: [{', '.join(rules)}, {{value: {rest}}}]}}"


def recipe(*slices):
    """A recipe of slices ``(model, first, last, more)``."""
    lines = [
        f"  - sources: [{{model: {model}, layer_range: [{first}, {last}]"
        f"{', ' + more[0] if more else ''}}}]"
        for model, first, last, *more in slices
    ]
    return "merge_method: passthrough\nslices:\n" + "\n".join(lines) + "\n"


STACKS = {
    "duplicate": lambda kind: recipe(("one", 0, 2), ("one", 1, 3), ("one", 1, 3)),
    "reorder": lambda kind: recipe(("one", 2, 3), ("one", 0, 1), ("one", 1, 2)),
    "drop": lambda kind: recipe(("one", 0, 1), ("one", 2, 3)),
    "two parents": lambda kind: recipe(("one", 0, 2), ("two", 1, 3)),
    "woven": lambda kind: recipe(*((name, i, i + 1) for i in range(3) for name in ("two", "one"))),
    "no layers at the end": lambda kind: recipe(("one", 0, 3), ("two", 2, 2)),
    "scaled ends": lambda kind: recipe(
        ("one", 0, 2), ("one", 1, 3, scaled(kind, (0.5, 0.25), 1.0)), ("one", 2, 3)
    ),
    "silent layer": lambda kind: recipe(("one", 0, 3), ("two", 0, 2, scaled(kind, (0, 0), 1))),
    "scaled by depth": lambda kind: recipe(
        ("one", 0, 3, "parameters: {scale: [0.25, 2]}"), ("two", 0, 1, "parameters: {scale: -3}")
    ),
}


CASES = [
    *((kind, name, "float32") for kind in KINDS for name in STACKS),
    *((kind, "scaled ends", "bfloat16") for kind in KINDS),
]


@pytest.mark.parametrize(("kind", "name", "dtype"), CASES)
def test_stack_has_the_tensors_that_mergekit_writes(mergekit, ours, family, kind, name, dtype):
    text = STACKS[name](kind)
    theirs = mergekit(f"dtype: {dtype}\n{text}", family(kind, dtype))
    found, dropped = ours(f"dtype: {dtype}\n{text}", kind, dtype)
    wanted = {tensor for tensor in theirs.keys() - dropped if not tensor.endswith(BUFFERS)}
    assert {x for x in found if not x.endswith(BUFFERS)} == wanted
    assert len(wanted) > 10
    for tensor in wanted:
        assert found[tensor].dtype == theirs[tensor].dtype
        assert torch.equal(found[tensor], theirs[tensor]), tensor


TIED = ("llama-tied", "gpt2")
PLACES = {"pythia": ("layers", "final_layer_norm"), "gpt2": ("h", "ln_f")}


@pytest.mark.parametrize("kind", KINDS)
def test_stack_computes_what_the_parents_own_layers_compute_in_a_row(planned, family, kind):
    """Modules of loaded parents, put into the list of one of them by hand: no name, no config."""
    from transformers import AutoModelForCausalLM

    one, two = (
        AutoModelForCausalLM.from_pretrained(family(kind) / name).eval() for name in ("one", "two")
    )
    stack, norm = PLACES.get(kind, ("layers", "norm"))
    layers = [getattr(model.base_model, stack) for model in (two, one)]
    woven = torch.nn.ModuleList(part[i] for i in range(3) for part in layers)
    setattr(two.base_model, stack, woven)  # begins with ``two``, ends with ``one``
    setattr(two.base_model, norm, getattr(one.base_model, norm))
    if kind not in TIED:  # a tied head is the first model's embedding
        two.set_output_embeddings(one.get_output_embeddings())
    two.config.num_hidden_layers = len(woven)
    ids = torch.arange(2, 12)[None]
    with torch.no_grad():
        by_hand = two(ids, use_cache=False).logits
        found = planned(STACKS["woven"](kind), kind).build()[1](ids, use_cache=False).logits
    assert torch.equal(found, by_hand)

from __future__ import annotations

import warnings

import pytest
import torch

from merge_core.errors import MergeWarning
from tests.merge_core.mixture.mixtures import SHARED, expert, mixture


def gates(made):
    return made.plan.parents["(routers)"]


@pytest.mark.parametrize("mode", ["random", "uniform_random"])
def test_drawn_routers_are_those_of_the_seed_and_of_their_name(mixed, mode):
    one, again, other = (gates(mixed(mixture(gate_mode=mode, seed=seed))) for seed in (3, 3, 4))
    names = sorted(one.tensors)
    assert all(one.tensor(name).equal(again.tensor(name)) for name in names)
    assert not any(one.tensor(name).equal(other.tensor(name)) for name in names)
    assert not one.tensor(names[0]).equal(one.tensor(names[1]))
    assert one.digest == again.digest != other.digest


def test_uniform_routers_lie_where_a_linear_layer_begins(mixed):
    made = gates(mixed(mixture(gate_mode="uniform_random")))
    every = torch.cat([made.tensor(name).flatten() for name in made.tensors])
    assert every.abs().max() <= 16**-0.5
    assert every.abs().max() > 0.9 * 16**-0.5
    assert every.min() < 0


def test_shared_gate_is_the_vector_of_its_own_prompts_without_the_temperature(mixed):
    plain, hot = (
        gates(mixed(mixture(shared_experts=SHARED, temperature=x), "qwen2")) for x in (1, 4)
    )
    shared, router = (
        "model.layers.1.mlp.shared_expert_gate.weight",
        "model.layers.1.mlp.gate.weight",
    )
    assert plain.tensor(shared).shape == (1, 16)
    assert plain.tensor(shared).equal(hot.tensor(shared))
    assert torch.allclose(hot.tensor(router), plain.tensor(router) / 4)
    alone = gates(mixed(mixture(expert("base"), "two")))
    name = "model.layers.1.block_sparse_moe.gate.weight"
    assert alone.tensor(name).shape == (2, 16)


def test_prompts_that_are_nearly_alike_are_warned_of(mixed):
    alike = [expert("one"), {"source_model": "two", "positive_prompts": ["add 1+2", "plus."]}]
    made = gates(mixed(mixture(*alike, gate_mode="cheap_embed")))
    with pytest.warns(MergeWarning, match="nearly alike in 4 of 4 layers"):
        made.tensor("model.layers.0.block_sparse_moe.gate.weight")


def test_prompts_that_differ_are_not_warned_of(mixed):
    apart = [expert("one"), {"source_model": "two", "positive_prompts": ["zzzz"]}]
    made = gates(mixed(mixture(*apart, gate_mode="cheap_embed")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.tensor("model.layers.0.block_sparse_moe.gate.weight")


def test_corrections_of_the_choice_are_zeros(mixed):
    from merge_core.errors import ParameterError

    shared = [{"source_model": "base"}]
    made = gates(mixed(mixture(shared_experts=shared), "llama"))
    zeros = [name for name in made.tensors if name.endswith("e_score_correction_bias")]
    assert len(zeros) == 4
    assert not any(made.tensor(name).any() for name in zeros)
    with pytest.raises(ParameterError):
        mixed(mixture(shared_experts=shared), "olmo2")

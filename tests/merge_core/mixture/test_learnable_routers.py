"""Routers of a live mixture that are learnt in place, and what becomes of them."""

import pytest
import torch

from merge_core.mixture.gates import GATES
from merge_core.output.live_model import Candidate
from merge_core.output.live_routers import every_row_learns
from tests.merge_core.mixture.mixtures import SHARED, mixture

KINDS = [("llama", {}), ("qwen2", {"shared_experts": SHARED}), ("qwen3", {})]
IDS = torch.tensor([[5, 9, 20, 11, 7, 3]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "keys"), KINDS)
def test_routers_alone_learn_and_the_next_build_makes_them_anew(mixed, kind, keys, dtype):
    made = mixed(mixture(gate_mode="random", dtype=dtype, **keys), kind)
    candidate = Candidate()
    digest = candidate.build(made.plan)
    model, routers = candidate.model, made.plan.parents[GATES].names
    before = {name: x.detach().clone() for name, x in model.named_parameters()}
    with candidate.learnable(routers) as found:
        assert [p for p in model.parameters() if p.requires_grad] == list(found.values())
        with every_row_learns(model, found):
            model(input_ids=IDS, labels=IDS).loss.backward()
        assert all(bool(x.grad.float().norm(dim=1).gt(0).all()) for x in found.values())
        with torch.no_grad():
            for parameter in found.values():
                parameter.mul_(2)
    assert all(p.grad is None for p in model.parameters())
    after = dict(model.named_parameters())
    changed = {name for name, x in before.items() if not x.equal(after[name])}
    assert changed == {name for name in before if name.endswith("gate.weight")}
    assert candidate.build(made.plan) == digest
    again = dict(model.named_parameters())
    assert all(x.equal(again[name]) for name, x in before.items())


def test_parents_keep_what_they_have_where_a_router_was_shared(mixed):
    first = mixed(mixture(gate_mode="random", dtype="float32"))
    gates = first.plan.parents[GATES]
    kept = {name: gates.tensor(name).clone() for name in gates.names}
    candidate = Candidate()
    candidate.build(first.plan)
    with candidate.learnable(gates.names) as found, torch.no_grad():
        for parameter in found.values():
            parameter.zero_()
    assert all(gates.tensor(name).equal(x) for name, x in kept.items())

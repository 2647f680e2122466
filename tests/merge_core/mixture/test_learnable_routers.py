"""Routers of a live mixture that are learnt in place, and what becomes of them."""

import pytest
import torch

from merge_core.errors import ParameterError
from merge_core.mixture.gates import GATES
from merge_core.output.live_model import Candidate
from merge_core.output.live_routers import every_row_learns
from tests.merge_core.mixture.mixtures import SHARED, mixture
from tests.merge_core.mixture.test_classes import CASES, copies, save

KINDS = [("llama", {}), ("qwen2", {"shared_experts": SHARED}), ("qwen3", {})]
CLASSES = {model_type: (kind, keys) for kind, keys, model_type in reversed(CASES)}
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


def noisy(mixed, model_type, root):
    """The plan of a mixture of one class, whose experts differ."""
    kind, keys = CLASSES[model_type]
    save(kind, root / "dense")
    data = {**copies(**keys), "experts_per_token": 2}
    data["experts"] = [{**expert, "noise_scale": 0.3} for expert in data["experts"]]
    return mixed(data, root=root).plan


def losses(candidate, plan):
    """The loss, and the one that routers learn from, which leaves its gradient."""
    candidate.build(plan)
    with candidate.learnable(plan.parents[GATES].names) as found:
        with torch.no_grad():
            for parameter in found.values():
                parameter.mul_(0.1)
        loss = candidate.model(input_ids=IDS, labels=IDS).loss.item()
        with every_row_learns(candidate.model, found):
            learnt = candidate.model(input_ids=IDS, labels=IDS).loss
            learnt.backward()
        return loss, learnt.item(), [x.grad.norm(dim=1) for x in found.values()]


@pytest.mark.parametrize("model_type", sorted(CLASSES.keys() - {"hunyuan_v1_moe"}))
def test_every_row_of_every_class_learns_from_the_loss_of_the_mixture(mixed, tmp_path, model_type):
    loss, learnt, norms = losses(Candidate(), noisy(mixed, model_type, tmp_path))
    assert learnt == pytest.approx(loss, rel=1e-5)
    assert all(bool((one > 0).all()) for one in norms)


def test_class_whose_routers_give_no_weights_is_refused_by_name(mixed, tmp_path):
    plan = noisy(mixed, "hunyuan_v1_moe", tmp_path)
    with pytest.raises(ParameterError, match=r"routers of HunYuanMoEV1ForCausalLM cannot be train"):
        losses(Candidate(), plan)

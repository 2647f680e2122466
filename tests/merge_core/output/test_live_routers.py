"""Gradients of routers, against finite differences, for the classes that mixtures are made of."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Glm4MoeConfig,
    MixtralConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

from merge_core.errors import ParameterError
from merge_core.output.live_routers import every_row_learns

EXPERTS, HIDDEN = 4, 16
SIZES = {
    "vocab_size": 20,
    "hidden_size": HIDDEN,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 32,
}
QWEN = {"num_experts": EXPERTS, "moe_intermediate_size": 12}
CLASSES = {
    "mixtral": lambda k: MixtralConfig(
        **SIZES, num_local_experts=EXPERTS, num_experts_per_tok=k, sliding_window=None
    ),
    "qwen2_moe": lambda k: Qwen2MoeConfig(
        **SIZES, **QWEN, num_experts_per_tok=k, shared_expert_intermediate_size=12
    ),
    "qwen3_moe": lambda k: Qwen3MoeConfig(
        **SIZES, **QWEN, num_experts_per_tok=k, norm_topk_prob=True
    ),
    "glm4_moe": lambda k: Glm4MoeConfig(
        **SIZES,
        n_routed_experts=EXPERTS,
        n_shared_experts=1,
        num_experts_per_tok=k,
        moe_intermediate_size=12,
        first_k_dense_replace=0,
        n_group=1,
        topk_group=1,
        norm_topk_prob=True,
        routed_scaling_factor=1.5,
    ),
}
IDS = torch.arange(12).reshape(2, 6)


def model_of(kind, k):
    torch.manual_seed(0)
    config = CLASSES[kind](k)
    config._experts_implementation = "eager"  # the others know no float64
    model = AutoModelForCausalLM.from_config(config).double().eval()
    assert not model.config.output_router_logits
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def routers_of(model):
    return {
        name: parameter.requires_grad_(True)
        for name, parameter in model.named_parameters()
        if name.endswith(("mlp.gate.weight", "shared_expert_gate.weight"))
    }


def loss_of(model):
    return torch.nn.functional.cross_entropy(
        model(input_ids=IDS).logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()
    )


def gradients(model, routers):
    for router in routers.values():
        router.grad = None
    loss_of(model).backward()
    return {name: router.grad for name, router in routers.items()}


@pytest.mark.parametrize("kind", CLASSES)
def test_gradient_with_all_experts_is_that_of_finite_differences(kind):
    model = model_of(kind, EXPERTS)
    routers = routers_of(model)
    with every_row_learns(model, routers):
        found = gradients(model, routers)
    for name, router in routers.items():
        expected = differences(model, router)
        assert torch.linalg.norm(found[name] - expected) < 2e-3 * torch.linalg.norm(expected), name


def differences(model, router, step=0.02):
    """Finite differences of the fourth order; a router's shares are float32 whatever it is."""
    flat, found = router.detach().view(-1), torch.zeros(router.numel(), dtype=router.dtype)
    for i, was in enumerate(flat.tolist()):
        loss = {}
        for x in (-2, -1, 1, 2):
            flat[i] = was + x * step
            with torch.no_grad():
                loss[x] = loss_of(model).item()
        flat[i] = was
        found[i] = (8 * (loss[1] - loss[-1]) - (loss[2] - loss[-2])) / (12 * step)
    return found.view_as(router)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("k", [1, 2])
def test_loss_inside_is_the_loss_outside_and_rows_that_no_token_goes_to_learn(kind, k):
    model = model_of(kind, k)
    routers = routers_of(model)
    outside, before = gradients(model, routers), loss_of(model).item()
    with every_row_learns(model, routers):
        inside, within = gradients(model, routers), loss_of(model).item()
    assert within == pytest.approx(before, rel=1e-6)  # routers' shares are float32
    name = next(name for name in routers if name.endswith("mlp.gate.weight"))
    assert bool((inside[name].norm(dim=1) > 0).all())
    if k == 1 and kind != "qwen2_moe":  # one share of one is 1, whatever the logits are
        assert outside[name].norm() < 1e-4 * inside[name].norm()
    assert gradients(model, routers)[name].equal(outside[name])


def test_gradient_of_chosen_experts_points_where_the_losss_own_does():
    model = model_of("qwen3_moe", 2)
    routers = routers_of(model)
    outside = gradients(model, routers)
    with every_row_learns(model, routers):
        inside = gradients(model, routers)
    ours, own = (torch.cat([x.flatten() for x in one.values()]) for one in (inside, outside))
    assert torch.nn.functional.cosine_similarity(ours, own, dim=0) > 0.3


def test_gate_of_a_shared_expert_is_left_alone():
    model = model_of("qwen2_moe", EXPERTS)
    routers = routers_of(model)
    outside = gradients(model, routers)
    with every_row_learns(model, routers):
        inside = gradients(model, routers)
    shared = [name for name in routers if "shared_expert_gate" in name]
    assert len(shared) == SIZES["num_hidden_layers"]
    for name in shared:
        torch.testing.assert_close(inside[name], outside[name], rtol=1e-4, atol=1e-9)


def test_routers_that_choose_otherwise_are_refused():
    model = model_of("mixtral", 2)
    routers = routers_of(model)
    gate = model.model.layers[0].mlp.gate

    def tanh(module, inputs, output):
        logits, _, chosen = output
        return logits, logits.gather(-1, chosen).tanh(), chosen

    gate.register_forward_hook(tanh)
    with (
        every_row_learns(model, routers),
        pytest.raises(ParameterError, match=r"MixtralForCausalLM cannot be trained"),
    ):
        loss_of(model)

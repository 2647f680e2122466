"""Which class of transformers a mixture of dense models becomes, and what it calls their tensors.

A row stands here where the class has the dense model's attention, norms and gated MLPs one to one;
that it does is asked of the class (``plan.check_result``), and of its numbers in the tests. Nothing
here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from merge_core.errors import ParameterError, hint
from merge_core.recipe.mixture_schema import PROMPTED, Mixture

MATRICES = ("gate_proj", "up_proj", "down_proj")  # of a dense MLP, the last one leads out
OUT = "down_proj"


@dataclass(frozen=True)
class Counts:
    """What the result's config counts."""

    layers: int
    experts: int
    per_token: int
    shared: int
    size: int  # rows of an expert's matrices
    shared_size: int  # of a shared expert's
    dense_layers: tuple[int, ...]


@dataclass(frozen=True)
class MixtureClass:
    """A class with experts; names of tensors are those behind ``model.layers.N.``."""

    name: str  # as mergekit calls it, where it has it
    model_type: str
    architecture: str  # transformers' class
    dense: tuple[str, ...]  # model types that it is made of
    keys: Callable[[Counts], Mapping[str, Any]]  # what its config has beside the dense one's
    shared: tuple[int, ...] = (0,)  # how many shared experts there may be
    least: int = 1  # experts
    expert: str = "mlp.experts.{expert}.{matrix}.weight"
    router: str = "mlp.gate.weight"
    shared_expert: str = "mlp.shared_experts.{matrix}.weight"
    shared_gate: str | None = None  # a sigmoid of it weighs the shared expert; None: it weighs 1
    # What the dense MLP's matrices are called in an expert, where that differs.
    matrices: Mapping[str, str] = field(default_factory=dict)
    zeros: str | None = None  # a correction of the routers' choice, for balance in training
    zeros_rows: int | None = None  # how many rows it has; None: it is a vector
    ties: bool = True  # whether vLLM, too, ties the head where the config says so
    # Stored tensor -> the matrices that stand in it below each other, where experts are fused.
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of all experts, stacked
    fused_shared: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dense_layers: Literal["any", "first", "none"] = "none"  # which layers may keep one MLP

    def matrix(self, name: str) -> str:
        """Return what an expert calls a matrix of a dense MLP."""
        return self.matrices.get(name, name)

    def zeros_shape(self, experts: int) -> tuple[int, ...]:
        """Return the shape of ``zeros``."""
        return (experts,) if self.zeros_rows is None else (self.zeros_rows, experts)


def _mixtral(counts: Counts) -> Mapping[str, Any]:
    return {
        "num_local_experts": counts.experts,
        "num_experts_per_tok": counts.per_token,
        "intermediate_size": counts.size,
    }


def _qwen3(counts: Counts) -> Mapping[str, Any]:
    return {
        "num_experts": counts.experts,
        "num_experts_per_tok": counts.per_token,
        "moe_intermediate_size": counts.size,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(counts.dense_layers),
    }


def _qwen2(counts: Counts) -> Mapping[str, Any]:
    return {**_qwen3(counts), "shared_expert_intermediate_size": counts.shared_size}


def _flex_olmo(counts: Counts) -> Mapping[str, Any]:
    return {
        "intermediate_size": counts.size,
        "num_experts": counts.experts,
        "num_experts_per_tok": counts.per_token,
        "norm_topk_prob": True,
    }


def _deepseek(counts: Counts) -> Mapping[str, Any]:
    return {
        "n_routed_experts": counts.experts,
        "n_shared_experts": counts.shared,
        "num_experts_per_tok": counts.per_token,
        "moe_intermediate_size": counts.size,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": len(counts.dense_layers),
    }


def _ernie(counts: Counts) -> Mapping[str, Any]:
    return {
        "moe_num_experts": counts.experts,
        "moe_num_shared_experts": counts.shared,
        "moe_k": counts.per_token,
        "moe_intermediate_size": counts.size,
        "moe_layer_start_index": len(counts.dense_layers),
        "moe_layer_end_index": counts.layers - 1,
        "moe_layer_interval": 1,
    }


def _cohere(counts: Counts) -> Mapping[str, Any]:
    return {
        "intermediate_size": counts.size,
        "num_experts": counts.experts,
        "num_shared_experts": counts.shared,
        "shared_expert_combination_strategy": "sum",
        "num_experts_per_tok": counts.per_token,
        "expert_selection_fn": "softmax",
        "norm_topk_prob": True,
        "mlp_layer_types": ["sparse"] * counts.layers,
    }


def _granite(counts: Counts) -> Mapping[str, Any]:
    return {
        "num_local_experts": counts.experts,
        "num_experts_per_tok": counts.per_token,
        "intermediate_size": counts.size,
        "shared_intermediate_size": counts.shared_size,
    }


def _hunyuan(counts: Counts) -> Mapping[str, Any]:
    return {
        "intermediate_size": counts.size,
        "num_experts": counts.experts,
        "moe_topk": counts.per_token,
    }


# The first that fits is taken. Those whose shared expert weighs 1 come before those with a gate.
CLASSES = (
    MixtureClass(
        "Mixtral",
        "mixtral",
        "MixtralForCausalLM",
        ("llama", "mistral"),
        _mixtral,
        expert="block_sparse_moe.experts.{expert}.{matrix}.weight",
        router="block_sparse_moe.gate.weight",
        matrices={"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"},
    ),
    MixtureClass(
        "DeepSeek MoE",
        "glm4_moe",
        "Glm4MoeForCausalLM",
        ("llama", "mistral", "qwen2", "qwen3"),
        _deepseek,
        shared=(1,),
        least=2,  # it groups experts by the sum of their two best scores
        zeros="mlp.gate.e_score_correction_bias",
        ties=False,
        dense_layers="first",
    ),
    MixtureClass(
        "Qwen MoE",
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        ("qwen2", "llama", "mistral"),
        _qwen2,
        shared=(1,),
        shared_expert="mlp.shared_expert.{matrix}.weight",
        shared_gate="mlp.shared_expert_gate.weight",
        dense_layers="any",
    ),
    MixtureClass(
        "Qwen3 MoE",
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        ("qwen3",),
        _qwen3,
        dense_layers="any",
    ),
    MixtureClass(
        "FlexOlmo",
        "flex_olmo",
        "FlexOlmoForCausalLM",
        ("olmo2",),
        _flex_olmo,
    ),
    MixtureClass(
        "Ernie 4.5 MoE",
        "ernie4_5_moe",
        "Ernie4_5_MoeForCausalLM",
        ("ernie4_5",),
        _ernie,
        shared=(0, 1),
        zeros="mlp.moe_statics.e_score_correction_bias",
        zeros_rows=1,
        dense_layers="first",
    ),
    MixtureClass(
        "Granite MoE",
        "granitemoeshared",
        "GraniteMoeSharedForCausalLM",
        ("granite", "llama", "mistral"),
        _granite,
        shared=(0, 1),
        expert="block_sparse_moe.experts.{expert}.{matrix}.weight",
        router="block_sparse_moe.router.layer.weight",
        shared_expert="shared_mlp.{matrix}.weight",
        fused={
            "block_sparse_moe.input_linear.weight": ("gate_proj", "up_proj"),
            "block_sparse_moe.output_linear.weight": ("down_proj",),
        },
        fused_shared={
            "shared_mlp.input_linear.weight": ("gate_proj", "up_proj"),
            "shared_mlp.output_linear.weight": ("down_proj",),
        },
    ),
    MixtureClass(
        "Cohere2 MoE",
        "cohere2_moe",
        "Cohere2MoeForCausalLM",
        ("cohere2",),
        _cohere,
        shared=(0, 1),
    ),
    MixtureClass(
        "HunYuan MoE",
        "hunyuan_v1_moe",
        "HunYuanMoEV1ForCausalLM",
        ("hunyuan_v1_dense",),
        _hunyuan,
        shared=(1,),
        router="mlp.gate.wg.weight",
        shared_expert="mlp.shared_mlp.{matrix}.weight",
    ),
)


def chosen(mixture: Mixture, model_type: str, where: str) -> MixtureClass:
    """Return the class that a mixture becomes.

    Args:
        mixture: What is asked for.
        model_type: Of the dense part.
        where: What has it, for messages.

    Raises:
        ParameterError: No class is made of such models, or has what the mixture asks for.
    """
    made = [one for one in CLASSES if model_type in one.dense]
    if not made:
        known = ", ".join(dict.fromkeys(name for one in CLASSES for name in one.dense))
        raise ParameterError(
            f"moe: {where} is a model of type {model_type!r}, of which no class of mixtures is "
            f"made; those of {known} become one"
        )
    named = _named(mixture.architecture, made, where)
    reasons = {one.name: _misfit(one, mixture) for one in named}
    fitting = [one for one in named if reasons[one.name] is None]
    if not fitting:
        raise ParameterError(f"moe: {'; '.join(f'{n}: {why}' for n, why in reasons.items())}")
    return fitting[0]


def _named(asked: str | None, made: list[MixtureClass], where: str) -> list[MixtureClass]:
    """Return those whose name or model type begins with what is asked for, or all."""
    if asked is None:
        return made
    start = asked.lower()
    found = [one for one in made if one.name.lower().startswith(start) or one.model_type == start]
    if not found:
        names = [one.name for one in made]
        raise ParameterError(
            f"moe.architecture: expected one that {where} can become, {' or '.join(names)}, got "
            f"{asked!r}{hint(asked, names)}"
        )
    return found


def _misfit(one: MixtureClass, mixture: Mixture) -> str | None:
    """Return why a class has not what a mixture asks for, or None."""
    count, dense = len(mixture.shared_experts), mixture.dense_layers
    if len(mixture.experts) < one.least:
        return f"takes at least {one.least} experts, got {len(mixture.experts)}"
    if count not in one.shared:
        takes = " or ".join(map(str, one.shared))
        return f"takes {takes} shared_experts, got {count}"
    if dense and one.dense_layers == "none":
        return f"has experts in every layer, got dense_layers {list(dense)}"
    if dense and one.dense_layers == "first" and dense != tuple(range(len(dense))):
        return f"takes the first layers as dense_layers, got {list(dense)}"
    prompts = any(expert.positive_prompts for expert in mixture.shared_experts)
    prompted = mixture.gate_mode in PROMPTED and count > 0
    if prompted and one.shared_gate is not None and not prompts:
        return "weighs its shared expert by prompts; give it positive_prompts"
    if prompted and one.shared_gate is None and prompts:
        return "has no gate for its shared expert; remove its prompts"
    return None

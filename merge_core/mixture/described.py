"""What ``mergetune methods moe`` and the documentation say of mixtures, as methods say it."""

from __future__ import annotations

from merge_core.contract import Described, Param, shared
from merge_core.recipe.mixture_schema import GATE_MODES

PER_TOKEN = "experts that a token is sent to, at most as many as there are"

MIXTURE = Described(
    name="moe",
    params=(
        shared("gate_mode", "what routers are made from", default="hidden", choices=GATE_MODES),
        shared("experts_per_token", PER_TOKEN, 1, 4, minimum=1, default=2),
        shared("temperature", "divides the routers' logits", 0.25, 4, above=0, default=1.0),
        Param("gate_scale", "factor on the expert's row of the routers", 0.5, 2, default=1.0),
        Param("residual_scale", "factor on what the expert gives", 0, 2, default=1.0),
        Param("noise_scale", "noise added to its weights", 0, 0.01, minimum=0, default=0.0),
    ),
    source="arXiv:2401.04088",
    about=(
        "No method of one tensor: the MLPs of several models stand side by side in every layer, as "
        "in Mixtral (Jiang et al., 2024), and a router sends each token to a few of them. All else "
        "(attention, norms, embeddings) is merged by the recipe's merge_method, or is that of "
        "base_model. Routers are not trained by default but made of prompts, as mergekit-moe does "
        "it: an expert's row is what a model makes of prompts that are meant for it. gate_mode "
        "says how: hidden (the hidden state at the last token), hidden_avg (over all tokens), "
        "cheap_embed (the tokens' embeddings), random and uniform_random (drawn); in a study "
        "trained fits the routers to the search items. Under dense_layers stand layers that keep "
        "one MLP."
    ),
    formula=(
        "r_i = mean of h(p) over positive_prompts of i - mean of h(p) over its negative_prompts\n"
        "g = softmax over the experts_per_token largest of gate_scale_i <r_i / |r_i|, x> / "
        "temperature\n"
        "out(x) = sum_i g_i residual_scale_i MLP_i(x)\n"
        "h(p): hidden state of prompt p ahead of the layer; x: what goes into the layer's MLP;\n"
        "some classes take the softmax over all experts first, or sigmoids"
    ),
    when=(
        "Experts that are good at different things, and memory for all of their MLPs: nothing is "
        "averaged away. It costs experts_per_token MLPs a token; a dense merge costs one."
    ),
    takes="experts: 1 or more, each with its prompts; base_model: all but the experts, or a recipe",
)

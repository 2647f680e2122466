"""A candidate that was built many times against a merge from scratch, on drawn recipes.

The candidate keeps thresholds, ranks, sums and whatever tensors did not change; from scratch each
tensor is made of the parents alone. Their weights digests must be equal.
"""

from __future__ import annotations

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from merge_core.merge.execute import Execution
from merge_core.merge.nested import plan
from merge_core.methods.registry import METHODS, method
from merge_core.output.live_model import Candidate
from tests.merge_core.conftest import read_recipe, weights_digest

FILTERS = ("mlp", "self_attn", "layernorm", "embed", ".1.")
HUNDREDTHS = st.integers(20, 80).map(lambda x: x / 100)
OWN = {
    "density": HUNDREDTHS | st.floats(0.2, 0.8),  # on the grid, and off it
    "gamma": st.floats(0, 0.1),
    "epsilon": st.floats(0.01, 0.15),
    "scale": st.floats(0.1, 2),
    "agreement": st.integers(1, 3),
}


def values_of(param):
    if param.choices:
        return st.sampled_from(param.choices)
    return OWN.get(param.name, st.floats(param.low, param.high).filter(bool))


@st.composite
def recipes(draw, name):
    """Plain data of a recipe, where each parameter that a recipe may give is drawn or left out."""
    found = method(name)
    most = (found.models[1] or 4) - (found.base != "none")
    models = ["one", "two", "three"][:most]
    trim = draw(st.sampled_from(["tensor", "global"]))

    def given_for(scope):
        settings = {}
        for param in found.params:
            if param.scope != scope or param.name == "trim":
                continue
            values = values_of(param)
            split = param.name != "density" or trim == "tensor"
            if split and draw(st.booleans()):
                case = {"filter": draw(st.sampled_from(FILTERS)), "value": draw(values)}
                settings[param.name] = [case, {"value": draw(values)}]
            else:
                settings[param.name] = draw(values)
        return settings

    recipe = {"merge_method": name, "seed": draw(st.integers(0, 3))}
    if found.base != "none":
        recipe["base_model"] = "base"
    recipe["models"] = [{"model": x, "parameters": given_for("model")} for x in models]
    recipe["parameters"] = given_for("shared")
    if found.param("trim") is not None:
        recipe["parameters"]["trim"] = trim
    return recipe


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS.names())
@settings(
    max_examples=3,
    deadline=None,
    phases=[Phase.generate],  # the drawn recipes are shown as they are
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_candidate_is_the_merge_from_scratch(planned, name, data):
    dtype = data.draw(st.sampled_from(["float32", "bfloat16"]))
    drawn = data.draw(st.lists(recipes(name), min_size=2, max_size=3))
    texts = [f"dtype: {dtype}\n{yaml.safe_dump(one)}" for one in drawn]
    parents = planned(texts[0], dtype=dtype).parents
    candidate = Candidate()
    for text in [*texts, texts[0]]:
        made = plan(read_recipe(text), parents)
        scratch = Execution(made)
        tensors = [(step.tensor, scratch.carry_out(step)) for step in made.steps]
        assert candidate.build(made) == weights_digest(tensors)

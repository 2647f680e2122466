"""Against mergekit 0.1.5 as a program, on recipes that Hypothesis draws: methods, forms, settings.

Left out, beside what ``test_parity_with_mergekit`` leaves out:

- Slices with different numbers of sources: mergekit gives the tensors behind the layers as many
  sources as the first slice has, and drops the rest without a word.
- Slices of Qwen2 and others whose config lists a kind for each layer: mergekit changes the count,
  not the list, and transformers refuses its config. ``test_slices`` has them.
- Ranges of one layer with whole numbers or flags in a gradient: there both take the last value.
- arcee_fusion on equal tensors, where 0/0 decides.
"""

from __future__ import annotations

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from merge_core.methods.registry import method
from tests.merge_core.distances import difference, ulps

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning"),
]

FORMS = [
    *(("llama", False), ("qwen2", False), ("mistral", False)),
    *(("llama", True), ("phi3", True), ("mistral", True)),
]
LAYERS = 4
EXPERTS = ("one", "two", "three")
FILTERS = ("mlp", "self_attn", "layernorm", "up_proj", "embed", ".1.")
WEIGHT = st.floats(0.05, 1.5)
FLAG = st.booleans()
WHOLE = st.just(1.0)
COMMON = {"weight": WEIGHT, "normalize": FLAG, "lambda": st.floats(0.1, 2)}
TRIMMED = {**COMMON, "density": st.floats(0.05, 1), "rescale": FLAG}
DRAWN = {
    "linear": {"weight": WEIGHT, "normalize": FLAG},
    "slerp": {"t": st.floats(0, 1)},
    "nuslerp": {"weight": WEIGHT, "nuslerp_flatten": FLAG, "nuslerp_row_wise": FLAG},
    "multislerp": {"weight": WEIGHT, "normalize_weights": FLAG},
    "karcher": {},
    "passthrough": {"scale": st.floats(0.1, 2) | st.floats(-2, -0.1)},
    "model_stock": {"filter_wise": FLAG},
    "nearswap": {"t": st.floats(0.001, 0.2)},
    "arcee_fusion": {},
    "task_arithmetic": COMMON,
    "ties": TRIMMED,
    "dare_linear": {**COMMON, "density": WHOLE},
    "dare_ties": {**COMMON, "density": WHOLE},
    "breadcrumbs": {**TRIMMED, "gamma": st.floats(0, 0.1)},
    "breadcrumbs_ties": {**TRIMMED, "gamma": st.floats(0, 0.1)},
    "della": {**COMMON, "density": WHOLE},
    "della_linear": {**COMMON, "density": WHOLE},
    "sce": {"select_topk": st.floats(0.1, 1)},
    "ram": {"epsilon": st.floats(1e-5, 0.05)},
    "ramplus_tl": {"r": st.floats(0.05, 0.5), "alpha": st.floats(0.1, 0.7)},
}
COUNTS = {"slerp": 1, "nuslerp": 2, "nearswap": 1, "arcee_fusion": 1, "passthrough": 1}


@st.composite
def setting(draw, values):
    """A value, a gradient, or filtered ones."""
    gradient = st.lists(values, min_size=2, max_size=5)
    plain = draw(st.sampled_from(["value", "gradient", "filters"]))
    if plain == "value":
        return draw(values)
    if plain == "gradient":
        return draw(gradient)
    cases = draw(st.lists(st.sampled_from(FILTERS), min_size=1, max_size=2, unique=True))
    found = [{"filter": name, "value": draw(values | gradient)} for name in cases]
    return [*found, {"value": draw(values | gradient)}]


@st.composite
def recipes(draw, name, sliced):
    """Plain data of a recipe for a method, in the ``models`` or in the ``slices`` form."""
    found = method(name)
    count = COUNTS.get(name) or draw(st.integers(2 if name == "model_stock" else 1, 3))
    experts = draw(st.permutations(EXPERTS))[:count]
    scopes = {key: method(name).param(key).scope for key in DRAWN[name]}

    def given_for(scope):
        keys = [key for key in DRAWN[name] if scopes[key] == scope]
        return {key: draw(setting(DRAWN[name][key])) for key in keys}

    def source(model, span):
        own = {"parameters": given_for("model")} if model != "base" else {}
        return {"model": model, **({"layer_range": span} if span else {}), **own}

    with_base = found.base == "required" or (found.base == "optional" and draw(FLAG))
    recipe = {"merge_method": name} | ({"base_model": "base"} if with_base else {})
    models = [*(["base"] if with_base else []), *experts]
    if sliced:
        starts = draw(
            st.lists(st.tuples(*[st.integers(0, LAYERS - 2)] * 2), min_size=1, max_size=3)
        )
        recipe["slices"] = []
        for first, length in starts:
            span = [first, min(first + length + 1, LAYERS)]
            one = {"sources": [source(model, span) for model in models]}
            recipe["slices"].append(one | ({"parameters": given_for("shared")}))
    else:
        recipe["models"] = [source(model, None) for model in models]
        recipe["parameters"] = given_for("shared")
    return recipe


def beyond_rounding(a, b):
    """Steps of bfloat16 from ``a`` to ``b``, where they differ by more than float32 results may.

    Where base and task vectors nearly cancel out, 1e-6 of the largest entry is many steps.
    """
    far = (a.double() - b.double()).abs() > 1e-6 * b.double().abs().max()
    return ulps(a[far], b[far]) if far.any() else 0


@pytest.mark.parametrize(("kind", "sliced"), FORMS)
@pytest.mark.parametrize("name", DRAWN)
@settings(
    max_examples=3,
    phases=[Phase.generate],  # a smaller example costs minutes of merges, and the recipe is shown
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_merge_is_that_of_mergekit(mergekit, ours, family, name, kind, sliced, data):
    dtype = data.draw(st.sampled_from(["float32", "bfloat16"]))
    text = yaml.safe_dump(data.draw(recipes(name, sliced)))
    theirs = mergekit(f"dtype: float32\nout_dtype: {dtype}\n{text}", family(kind))
    found, dropped = ours(f"dtype: {dtype}\n{text}", kind, "float32")
    assert found.keys() == theirs.keys() - dropped
    for tensor, value in found.items():
        assert value.shape == theirs[tensor].shape
        if dtype == "float32":
            assert difference(value, theirs[tensor]) <= 1e-6, tensor
        else:
            assert beyond_rounding(value, theirs[tensor]) <= 1, tensor

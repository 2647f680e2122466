"""Drawn numbers become the recipe that gives every tensor exactly the number meant for it."""

from __future__ import annotations

import random
from typing import Any

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution

from merge_core.architecture import layers
from merge_core.errors import MergeError
from merge_core.methods.registry import method
from merge_core.recipe.interpolate import value_of
from merge_core.recipe.schema import Recipe
from search.space.space import Space
from search.space.starting_points import defaults, levels
from search.spec import recipe_template
from tests.places import place

LLAMA = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
PARTS = ("input_layernorm.weight", "mlp.up_proj.weight", "self_attn.q_proj.weight")
EMBEDDING, NORM, HEAD = LLAMA


def llama(count: int) -> list[str]:
    return [*LLAMA, *(f"model.layers.{i}.{part}" for i in range(count) for part in PARTS)]


def space_of(weight: Any, count: int = 4, tensors: Any = None, **recipe: Any) -> Space:
    """Return the space of a task arithmetic whose first model has that weight."""
    one = {"model": "one", "parameters": {"weight": weight}}
    two = {"model": "two", "parameters": {"weight": 0.25}}
    data = {"merge_method": "task_arithmetic", "base_model": "base", "models": [one, two], **recipe}
    return Space(template_of(data), tensors or llama(count))


def template_of(data: Any) -> recipe_template.Template:
    problems: list[tuple[str, str]] = []
    found = recipe_template.parse(data, "recipe", problems)
    assert found is not None, problems
    return found


def draw(space: Space, seed: int = 0) -> dict[str, Any]:
    """Return one random point of a space, as Optuna draws it."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return study.ask(fixed_distributions=space.distributions()).params


def values(
    recipe: Recipe, tensors: Any, model: str = "one", name: str = "weight"
) -> dict[str, float]:
    """Return what the dialect's own rules give every tensor."""
    param, stack = method(recipe.merge_method).param(name), layers.of(tensors)
    own = next(dict(source.parameters) for source in recipe.models if source.model == model)
    given = [level[name] for level in (own, dict(recipe.parameters)) if name in level]
    return {t: value_of(param, given, t, place(stack, t)) for t in tensors}


def layer_values(recipe: Recipe, count: int, part: str = PARTS[0]) -> list[float]:
    found = values(recipe, llama(count))
    return [found[f"model.layers.{i}.{part}"] for i in range(count)]


def names(space: Space) -> list[str]:
    return [d.name for d in space.dimensions]


RANGE = {"low": 0.0, "high": 1.5}


@pytest.mark.parametrize(
    ("spread", "layer_count", "dimensions"),
    [
        ({}, 24, 1),
        ({"per": "layer"}, 24, 24),
        ({"per": 8}, 24, 3),
        ({"per": 5}, 24, 5),
        ({"per": 30}, 24, 1),
        ({"gradient": 6}, 24, 6),
        ({"per": "layer"}, 1, 1),
    ],
)
def test_a_knob_has_as_many_dimensions_as_its_spread_says(
    spread: dict[str, Any], layer_count: int, dimensions: int
) -> None:
    assert len(space_of({**RANGE, **spread}, layer_count).dimensions) == dimensions


@pytest.mark.parametrize("count", [1, 2, 3, 4, 24, 33, 80, 126])
def test_every_layer_has_exactly_the_number_that_was_drawn_for_it(count: int) -> None:
    space = space_of({**RANGE, "per": "layer"}, count)
    point = draw(space)
    recipe = space.recipe(point)
    for part in PARTS:
        assert layer_values(recipe, count, part) == list(point.values())


@pytest.mark.parametrize(("per", "count"), [(2, 4), (3, 10), (7, 24), (9, 4)])
def test_neighbouring_layers_share_exactly_one_number(per: int, count: int) -> None:
    space = space_of({**RANGE, "per": per}, count)
    drawn = list(draw(space).values())
    recipe = space.recipe(dict(zip(names(space), drawn, strict=True)))
    assert layer_values(recipe, count) == [drawn[i // per] for i in range(count)]


@pytest.mark.parametrize("spread", [{"per": "layer"}, {"per": 2}, {"gradient": 3}])
def test_embeddings_have_the_first_number_and_final_norm_and_head_the_last(spread: Any) -> None:
    space = space_of({**RANGE, **spread})
    drawn = list(draw(space).values())
    found = values(space.recipe(dict(zip(names(space), drawn, strict=True))), llama(4))
    assert found[EMBEDDING] == drawn[0]
    assert found[NORM] == found[HEAD] == drawn[-1]
    assert drawn[0] != drawn[-1]


@pytest.mark.parametrize(
    ("spread", "layers", "count"),
    [
        ({}, 32, 1),
        ({"per": "layer"}, 32, 32),
        ({"per": 8}, 32, 4),
        ({"per": 5}, 32, 7),
        ({"per": 40}, 32, 1),
        ({"gradient": 5}, 32, 5),
        ({"gradient": 5}, 4, 5),
    ],
)
def test_a_knob_stands_for_as_many_numbers_as_its_spread_says(
    spread: dict[str, Any], layers: int, count: int
) -> None:
    space = space_of({"low": 0.0, "high": 1.0, **spread}, count=layers)
    assert len(space.dimensions) == count


def test_numbers_that_are_not_spread_ask_nothing_of_the_layers() -> None:
    several = [*llama(2), "visual.blocks.0.weight", "visual.merger.0.weight"]
    plain = space_of({"low": 0.0, "high": 1.0}, tensors=several)
    assert (len(plain.dimensions), plain.idle) == (1, [])
    with pytest.raises(MergeError, match="several layer stacks"):
        space_of({"low": 0.0, "high": 1.0, "per": 1}, tensors=several)


def test_anchors_of_a_gradient_are_interpolated_over_the_layers() -> None:
    space = space_of({**RANGE, "gradient": 3}, 5)
    recipe = space.recipe({f"weight/one/anchor {i}": x for i, x in enumerate((0.0, 1.0, 0.5))})
    assert layer_values(recipe, 5) == [0.0, 0.5, 1.0, 0.75, 0.5]


@pytest.mark.parametrize(
    ("before", "layer", "after"),
    [
        ("gpt_neox.embed_in", "gpt_neox.layers.", "gpt_neox.final_layer_norm embed_out"),
        ("wte wpe", "h.", "ln_f"),
        ("transformer.wte", "transformer.h.", "transformer.ln_f lm_head"),
        ("transformer.word_embeddings", "transformer.h.", "transformer.ln_f lm_head"),
    ],
)
def test_what_stands_before_and_after_the_layers_is_read_from_the_names(
    before: str, layer: str, after: str
) -> None:
    first, last = ([f"{name}.weight" for name in names.split()] for names in (before, after))
    tensors = [*first, *last, *(f"{layer}{i}.ln_1.weight" for i in (0, 1))]
    space = space_of({**RANGE, "per": "layer"}, tensors=tensors)
    recipe = space.recipe({"weight/one/layer 0": 0.25, "weight/one/layer 1": 0.75})
    found = values(recipe, tensors)
    assert {name: found[name] for name in first} == dict.fromkeys(first, 0.25)
    assert {name: found[name] for name in last} == dict.fromkeys(last, 0.75)


def test_a_final_norm_whose_name_is_part_of_a_layers_tensor_takes_nothing_from_it() -> None:
    tensors = ["norm.weight", "embed.weight", *(f"layers.{i}.input_norm.weight" for i in (0, 1))]
    space = space_of({**RANGE, "per": "layer"}, tensors=tensors)
    found = values(space.recipe({"weight/one/layer 0": 0.25, "weight/one/layer 1": 0.75}), tensors)
    assert list(found.values()) == [0.75, 0.25, 0.25, 0.75]


def test_the_first_filter_that_matches_keeps_its_tensors() -> None:
    weight = [
        {"filter": "mlp", "value": {**RANGE, "per": "layer"}},
        {"filter": "norm", "value": 0.125},
        {"value": {**RANGE, "per": 2}},
    ]
    space = space_of(weight)
    point = draw(space)
    drawn = list(point.values())
    found = space.recipe(point)
    assert layer_values(found, 4, "mlp.up_proj.weight") == drawn[:4]
    assert layer_values(found, 4, "input_layernorm.weight") == [0.125] * 4
    assert layer_values(found, 4, "self_attn.q_proj.weight") == [drawn[i] for i in (4, 4, 5, 5)]
    outside = values(found, llama(4))
    assert (outside[EMBEDDING], outside[NORM], outside[HEAD]) == (drawn[4], 0.125, drawn[5])


def test_no_filter_is_written_that_never_holds() -> None:
    weight = [{"filter": "norm", "value": 0.125}, {"value": {**RANGE, "per": 4}}]
    (source, _) = space_of(weight).recipe({"weight/one/layers 0-3": 0.5}).plain()["models"]
    assert source["parameters"]["weight"] == [
        {"filter": "norm", "value": 0.125},
        {"filter": "model.embed_tokens.weight", "value": 0.5},
        {"filter": "lm_head.weight", "value": 0.5},
        {"value": [0.5] * 4},
    ]


def test_a_filter_named_after_the_head_gives_it_the_last_number() -> None:
    weight = [{"filter": "lm_head", "value": {**RANGE, "per": "layer"}}, {"value": 0.5}]
    space = space_of(weight)
    point = draw(space)
    found = values(space.recipe(point), llama(4))
    assert found[HEAD] == list(point.values())[-1]
    assert {x for name, x in found.items() if name != HEAD} == {0.5}


def test_the_users_other_cases_and_models_stay_as_they_are() -> None:
    weight = [
        {"filter": "q_proj", "value": [0.5, 1.0]},
        {"filter": "mlp", "value": {**RANGE, "per": 2}},
        {"filter": "*", "value": 0.75},
    ]
    point = {"weight/one/mlp/layers 0-1": 0.25, "weight/one/mlp/layers 2-3": 1.0}
    recipe = space_of(weight, parameters={"lambda": 0.9}).recipe(point).plain()
    assert recipe["models"][0]["parameters"]["weight"] == [
        {"filter": "q_proj", "value": [0.5, 1.0]},
        {"filter": "mlp", "value": [0.25, 0.25, 1.0, 1.0]},
        {"filter": "*", "value": 0.75},
    ]
    assert recipe["models"][1] == {"model": "two", "parameters": {"weight": 0.25}}
    assert recipe["parameters"] == {"lambda": 0.9}


def test_a_single_case_without_a_list_is_read_like_a_list_of_one() -> None:
    case = {"filter": "mlp", "value": {**RANGE, "per": 2}}
    point = {"weight/one/mlp/layers 0-1": 0.25, "weight/one/mlp/layers 2-3": 1.0}
    weights = {"weight": 0.5}
    alone = space_of(case, parameters=weights).recipe(point)
    assert layer_values(alone, 4, "mlp.up_proj.weight") == [0.25, 0.25, 1.0, 1.0]
    assert alone == space_of([case], parameters=weights).recipe(point)


def test_numbers_of_a_shared_parameter_reach_every_layer() -> None:
    models = [{"model": "one"}]
    t = {"low": 0.0, "high": 1.0, "per": "layer"}
    data = {"merge_method": "slerp", "base_model": "base", "models": models, "parameters": {"t": t}}
    space = Space(template_of(data), llama(4))
    point = draw(space)
    found = values(space.recipe(point), llama(4), name="t")
    assert [found[f"model.layers.{i}.{PARTS[1]}"] for i in range(4)] == list(point.values())
    assert found[HEAD] == point["t/layer 3"]


def test_a_range_inside_a_gradient_is_one_of_its_values() -> None:
    space = space_of([RANGE, 0.5, RANGE])
    assert names(space) == ["weight/one/value 0", "weight/one/value 2"]
    recipe = space.recipe({"weight/one/value 0": 0.25, "weight/one/value 2": 1.0})
    assert dict(recipe.models[0].parameters)["weight"] == (0.25, 0.5, 1.0)


def test_grid_values_are_written_without_float_noise() -> None:
    space = space_of({"low": 0.1, "high": 1.0, "step": 0.05, "per": "layer"}, 4)
    noisy = [0.1 + i * 0.05 for i in (1, 3, 9, 17)]
    assert noisy != [0.15, 0.25, 0.55, 0.95]
    recipe = space.recipe(dict(zip(names(space), noisy, strict=True)))
    assert layer_values(recipe, 4) == [0.15, 0.25, 0.55, 0.95]


METHODS = """
merge_method: {choices: [linear, ties, dare_ties]}
base_model: base
models:
  - model: base
  - model: one
    parameters:
      weight: {low: 0.0, high: 1.0, per: layer}
      density: {low: 0.1, high: 1.0, gradient: 2}
  - {model: two, parameters: {weight: 0.5, density: 0.5}}
parameters: {normalize: true}
"""


@pytest.mark.parametrize("name", ["linear", "ties", "dare_ties"])
def test_each_method_of_the_choices_gets_the_numbers_it_has_a_use_for(name: str) -> None:
    space = Space(template_of(yaml.safe_load(METHODS)), llama(4))
    point = {**draw(space), "merge_method": name}
    recipe = space.recipe(point)
    drawn = {i: point[f"weight/one/layer {i}"] for i in range(4)}
    assert recipe.merge_method == name
    assert layer_values(recipe, 4) == list(drawn.values())
    assert values(recipe, llama(4))[HEAD] == drawn[3]
    assert ("density" in dict(recipe.models[-1].parameters)) == (name != "linear")
    assert recipe.base_model == (None if name == "linear" else "base")


def test_names_are_the_studys_own_words() -> None:
    weight = [
        {"filter": "self_attn", "value": {**RANGE, "per": "layer"}},
        {"filter": "mlp", "value": {**RANGE, "per": 2}},
        {"value": {**RANGE, "gradient": 2}},
    ]
    lam = {"lambda": {"low": 0.5, "high": 1.0}}
    assert names(space_of(weight, 3, parameters=lam)) == [
        "weight/one/self_attn/layer 0",
        "weight/one/self_attn/layer 1",
        "weight/one/self_attn/layer 2",
        "weight/one/mlp/layers 0-1",
        "weight/one/mlp/layer 2",
        "weight/one/anchor 0",
        "weight/one/anchor 1",
        "lambda",
    ]


def test_a_rest_without_a_filter_has_the_models_plain_name() -> None:
    weight = [{"filter": "mlp", "value": RANGE}, {"value": RANGE}]
    assert names(space_of(weight)) == ["weight/one/mlp", "weight/one"]


def test_two_models_with_the_same_folder_name_get_distinct_names() -> None:
    models = [
        {"model": f"{place}/model/", "parameters": {"weight": {**RANGE, "per": 2}}}
        for place in ("zoo", "old")
    ]
    assert names(space_of(1.0, models=models)) == [
        "weight/model/layers 0-1",
        "weight/model/layers 2-3",
        "weight/model (recipe.models[1].parameters.weight)/layers 0-1",
        "weight/model (recipe.models[1].parameters.weight)/layers 2-3",
    ]


def test_a_filter_that_reads_like_a_layer_does_not_share_its_name() -> None:
    weight = [
        {"filter": "layer 0", "value": RANGE},
        {"filter": "layer 0", "value": RANGE},
        {"value": {**RANGE, "per": "layer"}},
    ]
    found = names(space_of(weight))
    assert len(set(found)) == len(found) == 6


def test_distributions_are_the_ranges_and_choices_of_the_file() -> None:
    density = {"low": 0.1, "high": 1.0, "step": 0.05}
    models = [{"model": "one", "parameters": {"weight": {**RANGE, "per": 4}, "density": density}}]
    shared = {"normalize": {"choices": [True, False]}, "lambda": {**RANGE, "low": 0.1, "log": True}}
    space = space_of(0, merge_method="ties", models=models, parameters=shared)
    assert space.distributions() == {
        "weight/one/layers 0-3": FloatDistribution(0.0, 1.5),
        "density/one": FloatDistribution(0.1, 1.0, step=0.05),
        "normalize": CategoricalDistribution((True, False)),
        "lambda": FloatDistribution(0.1, 1.5, log=True),
    }


@pytest.mark.parametrize(
    ("knob", "default"),
    [
        ({"low": 0.0, "high": 1.5}, 1.0),
        ({"low": 0.0, "high": 0.7}, 0.7),
        ({"low": 1.2, "high": 1.5}, 1.2),
        ({"low": 0.1, "high": 1.3, "step": 0.4}, 0.9),
        ({"choices": [0.5, 0.7]}, 0.5),
        ({"choices": [0.5, 1]}, 1),
    ],
)
def test_defaults_are_the_methods_own_moved_into_the_range(knob: Any, default: float) -> None:
    assert defaults(space_of(knob)) == {"weight/one": default}


def test_a_parameter_without_a_default_of_its_own_starts_where_the_method_says() -> None:
    models = [{"model": "one"}]
    t = {"low": 0.0, "high": 1.0}
    data = {"merge_method": "slerp", "base_model": "base", "models": models, "parameters": {"t": t}}
    assert defaults(Space(template_of(data), llama(4))) == {"t": 0.5}


def test_the_default_method_is_the_first_choice() -> None:
    space = Space(template_of(yaml.safe_load(METHODS)), llama(4))
    assert defaults(space)["merge_method"] == "linear"


def test_levels_turn_the_first_parameter_everywhere_through_the_common_range() -> None:
    models = [
        {"model": "one", "parameters": {"weight": {"low": 0.0, "high": 1.5, "per": 2}}},
        {"model": "two", "parameters": {"weight": {"low": 0.5, "high": 2.0}}},
    ]
    space = space_of(0, models=models, parameters={"lambda": {"low": 0.5, "high": 2.0}})
    found = levels(space)
    assert list(found) == [f"weight={x}" for x in ("0.7", "0.9", "1.1", "1.3", "1.5")]
    assert found["weight=0.9"] == pytest.approx(
        dict.fromkeys(names(space)[:3], 0.9) | {"lambda": 1.0}
    )


def test_levels_are_moved_onto_each_knobs_grid() -> None:
    space = space_of({"low": 0.0, "high": 1.0, "step": 0.25})
    assert [p["weight/one"] for p in levels(space).values()] == [0.25, 0.5, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("weight", [0.5, {"choices": [0.1, 0.2]}])
def test_there_are_no_levels_where_no_range_turns_the_first_parameter(weight: Any) -> None:
    assert levels(space_of(weight, parameters={"lambda": {"low": 0.5, "high": 2.0}})) == {}


def test_there_are_no_levels_where_the_ranges_have_nothing_in_common() -> None:
    models = [
        {"model": f"m{low}", "parameters": {"weight": {"low": low, "high": low + 1}}}
        for low in (0, 2)
    ]
    assert levels(space_of(0, models=models)) == {}


def test_defaults_and_levels_lie_inside_every_distribution() -> None:
    weight = [
        {"filter": "mlp", "value": {"low": 0.3, "high": 0.9, "step": 0.1, "per": "layer"}},
        {"value": {"low": 0.01, "high": 1.0, "log": True, "gradient": 3}},
    ]
    space = space_of(weight, parameters={"normalize": {"choices": [False, True]}})
    for point in (defaults(space), *levels(space).values()):
        for name, distribution in space.distributions().items():
            assert distribution._contains(distribution.to_internal_repr(point[name])), name


def test_points_of_defaults_and_levels_are_valid_recipes() -> None:
    space = Space(template_of(yaml.safe_load(METHODS)), llama(4))
    points = [defaults(space), *levels(space).values()]
    assert [layer_values(space.recipe(p), 4)[0] for p in points] == pytest.approx(
        [1.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    )


def test_the_same_point_gives_the_same_recipe_whatever_the_order_of_tensors() -> None:
    weight = {**RANGE, "per": "layer"}
    shuffled = random.Random(0).sample(llama(4), len(llama(4)))
    point = draw(space_of(weight))
    assert space_of(weight, tensors=shuffled).recipe(point) == space_of(weight).recipe(point)


def test_a_spread_knob_needs_a_model_with_layers() -> None:
    rule = r"recipe\.models\[0\]\.parameters\.weight: per needs a model with layers"
    with pytest.raises(MergeError, match=rule):
        space_of({**RANGE, "per": 2}, tensors=["embed.weight", "head.weight"])


def test_a_value_outside_the_methods_limits_is_refused_with_its_path() -> None:
    models = [{"model": "one", "parameters": {"weight": 1, "density": {"low": 0.1, "high": 1.0}}}]
    space = space_of(0, merge_method="ties", models=models)
    with pytest.raises(MergeError, match=r"recipe\.models\[0\]\.parameters\.density: must be in"):
        space.recipe({"density/one": 2.0})

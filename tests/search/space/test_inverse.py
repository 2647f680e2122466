"""A recipe of the space gives back a point that makes it; what the units cannot say is refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from merge_core.errors import MergeError
from merge_core.methods.registry import method
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe
from search.space.inverse import point_of
from search.space.space import Space
from tests.search.space.test_conditions import METHODS
from tests.search.space.test_space import draw, llama, space_of, template_of, values
from tests.search.space.test_units import EVERY

RANGE = {"low": 0.1, "high": 1.5}


def same(space: Space, point: dict[str, Any], recipe: Recipe, count: int) -> None:
    """Make sure that a point makes a recipe, up to what floats lose."""
    made = space.recipe(point)
    assert point.keys() == space.active(point)
    for name, distribution in space.distributions().items():
        if name in point:
            assert distribution._contains(distribution.to_internal_repr(point[name])), name
    assert made.seed == recipe.seed
    for param in method(recipe.merge_method).params:
        for model in recipe.models if param.scope == "model" else []:
            mine, given = (values(x, llama(count), model.model, param.name) for x in (made, recipe))
            assert mine == pytest.approx(given, abs=1e-6), (model.model, param.name)


@pytest.mark.parametrize("unit", [{}, {"log": True}, {"step": 0.05}, *EVERY], ids=str)
@pytest.mark.parametrize("cases", [False, True])
def test_every_unit_is_read_back(unit: dict[str, Any], cases: bool) -> None:
    knob = {**RANGE, **unit}
    weight = [{"filter": "mlp", "value": knob}, {"filter": "norm", "value": 0.3}, {"value": knob}]
    space = space_of(weight if cases else knob, 6)
    for seed in range(3):
        point = draw(space, seed)
        recipe = space.recipe(point)
        found = point_of(space, recipe)
        same(space, found, recipe, 6)
        if unit not in ({"cosine": 3}, {"shape": "kernel"}):  # other numbers may make the same
            assert found == pytest.approx(point)


@pytest.mark.parametrize(
    "knob",
    [
        {**RANGE, "ordered": True, "per": "layer"},
        {**RANGE, "ordered": True, "gradient": 3},
        {**RANGE, "tied": "w", "per": 2},
        {"sum": 1},
        {"sum": 1.5, "per": "tensor"},
        {"sum": 1, "gradient": 3},
    ],
    ids=str,
)
def test_knobs_that_belong_together_are_read_back(knob: dict[str, Any]) -> None:
    models = [{"model": m, "parameters": {"weight": knob}} for m in ("one", "two")]
    space = space_of(0, 6, models=models)
    for seed in range(3):
        point = draw(space, seed)
        if "sum" in knob:  # logits count up to their mean, which reaches no end here
            point = {name: value / 3 for name, value in point.items()}
        recipe = space.recipe(point)
        same(space, point_of(space, recipe), recipe, 6)


@pytest.mark.parametrize("name", ["linear", "ties", "dare_ties"])
@pytest.mark.parametrize("taken", [True, False])
def test_methods_and_who_takes_part_are_read_back(name: str, taken: bool) -> None:
    space = Space(template_of(yaml.safe_load(METHODS)), llama(4))
    point = draw(space) | {"merge_method": name, "take_part/three": taken}
    recipe = space.recipe(point)
    found = point_of(space, recipe)
    assert found == pytest.approx({key: point[key] for key in space.active(point)})
    assert space.recipe(found).digest() == recipe.digest() or found != point


def test_values_inside_a_written_gradient_are_read_back() -> None:
    space = space_of([RANGE, 0.5, RANGE])
    point = draw(space)
    assert point_of(space, space.recipe(point)) == pytest.approx(point)


def recipe_of(**changes: Any) -> Recipe:
    weights = {"one": 0.5, "two": 0.25}
    data = {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [{"model": m, "parameters": {"weight": w}} for m, w in weights.items()],
        **changes,
    }
    found = recipe_reader.parse(data, "", problems := [])
    assert found is not None, problems
    return found


ONE = {"model": "one", "parameters": {"weight": 0.5}}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"merge_method": "ties"}, r"recipe\.merge_method: expected task_arithmetic, got 'ties'"),
        ({"base_model": "other"}, r"recipe\.base_model: the study has 'base', this recipe 'other'"),
        ({"dtype": "float16"}, r"recipe\.dtype: the study has None, this recipe 'float16'"),
        ({"models": [ONE]}, r"recipe\.models: the study merges one, two, this recipe one"),
        (
            {"models": [ONE, {"model": "two", "parameters": {"weight": 0.3}}]},
            r"recipe\.models\[1\]\.parameters\.weight: this recipe has 0\.3 for .* say is 0\.25",
        ),
        (
            {"parameters": {"lambda": 0.5}},
            r"recipe\.parameters\.lambda: this recipe has 0\.5 for .* say is 1\.0",
        ),
        (
            {
                "models": [
                    {"model": "one", "parameters": {"weight": 2}},
                    {"model": "two", "parameters": {"weight": 0.25}},
                ]
            },
            r"models\[0\]\.parameters\.weight: this recipe has 2 for .* say is 1\.5 \(15 such",
        ),
    ],
)
def test_what_is_no_point_is_refused_by_key_path(changes: Any, rule: str) -> None:
    space = space_of(RANGE)
    assert point_of(space, recipe_of()) == {"weight/one": 0.5}
    with pytest.raises(MergeError, match=rule):
        point_of(space, recipe_of(**changes))


@pytest.mark.parametrize(
    "text",
    [
        (
            "{merge_method: task_arithmetic, base_model: base, slices: [{sources: [{model: one, "
            "layer_range: [0, 2], parameters: {weight: 1}}]}]}"
        ),
        (
            "{merge_method: task_arithmetic, base_model: base, models: [{model: two, parameters: "
            "{weight: 0.25}}]}"
        ),
        (
            "{merge_method: task_arithmetic, base_model: base, models: [{model: x, parameters: "
            "{weight: 0.25}}]}"
        ),
    ],
)
def test_a_recipe_of_other_models_is_refused_before_its_numbers_are_read(text: str) -> None:
    recipe = recipe_reader.parse(yaml.safe_load(text), "", problems := [])
    assert recipe is not None, problems
    with pytest.raises(MergeError, match=r"recipe\.models: the study merges one, two, this recipe"):
        point_of(space_of(RANGE), recipe)


def test_a_value_beside_the_grid_is_refused() -> None:
    with pytest.raises(MergeError, match=r"has 0\.5 for .* say is 0\.45"):
        point_of(space_of({"low": 0.0, "high": 1.35, "step": 0.45}), recipe_of())

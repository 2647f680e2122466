"""What a page shows of a recipe over depth is what a merge takes, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from merge_core.errors import Problems
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe
from search.report.page.depth import ALL, OTHERS, Map, maps, path
from search.report.page.heat import Shades, mean, over_depth
from search.space.space import Space
from search.spec.study_file import StudySpec
from tests.search import toy

Study = Callable[..., StudySpec]
KNOBS = {
    "per": "{low: 0.0, high: 1.5, per: 2}",
    "layer": "{low: 0.0, high: 1.5, per: layer}",
    "tensor": "{low: 0.0, high: 1.5, per: tensor}",
    "gradient": "{low: 0.0, high: 1.5, gradient: 3}",
    "one": "{low: 0.0, high: 1.5}",
    "filter": "[{filter: mlp, value: {low: 0.0, high: 1.5, per: layer}}, {value: 0.5}]",
}


def recipe(data: dict[str, Any]) -> Recipe:
    problems: Problems = []
    found = recipe_reader.parse(data, "recipe", problems)
    assert found is not None, problems
    return found


def shown(one: Map, tensor: str) -> float:
    """Return what a reader takes from a map for a tensor: the first column that fits."""
    short = tensor.removesuffix(".weight")
    if short in one.outside:
        return one.outside[short]
    layer = toy.STACK.index(tensor)
    columns = [c for c in one.columns if c in short] or [ALL if ALL in one.columns else OTHERS]
    cells = one.columns[columns[0]]
    return cells.get(layer or 0, cells[0])


@pytest.mark.parametrize("knob", KNOBS.values(), ids=KNOBS)
def test_cell_of_a_tensor_has_the_value_that_the_merge_takes(study: Study, knob: str) -> None:
    text = toy.STUDY.replace("{low: 0.0, high: 1.5, per: 2}", knob, 1)
    spec = study(text)
    space = Space(spec.template, toy.TENSORS)
    drawn = {name: 0.1 + 1.3 * toy.noise(name) for name in space.distributions()}
    made = space.recipe(drawn)
    one = {m.model: m for m in maps(made)}["org/one"]
    for tensor in toy.TENSORS:
        if toy.STACK.index(tensor) is None and knob == KNOBS["filter"]:
            continue  # one number holds for all
        assert shown(one, tensor) == pytest.approx(toy.weight_of(made, "org/one", tensor)), tensor
    assert one.varies == (knob != KNOBS["one"])


def test_shared_parameter_is_a_map_without_a_model() -> None:
    found = maps(
        recipe(
            {
                "merge_method": "slerp",
                "base_model": "a/a",
                "models": [{"model": "a/a"}, {"model": "a/b"}],
                "parameters": {"t": [0, 0.5, 1]},
            }
        )
    )
    ((one),) = found
    assert (one.parameter, one.model, one.columns) == ("t", "", {ALL: {0: 0.0, 1: 0.5, 2: 1.0}})


SLICES = {
    "merge_method": "linear",
    "slices": [
        {
            "sources": [
                {"model": "a/a", "layer_range": [0, 2], "parameters": {"weight": [0.0, 1.0]}},
                {"model": "a/b", "layer_range": [4, 6], "parameters": {"weight": 0.5}},
            ]
        },
        {"sources": [{"model": "a/a", "layer_range": [1, 4], "parameters": {"weight": [1, 0]}}]},
    ],
}


def test_slices_stand_one_after_the_other_each_interpolated_anew() -> None:
    found = {one.model: one.columns[ALL] for one in maps(recipe(SLICES))}
    assert found == {
        "a/a": {0: 0.0, 1: 1.0, 2: 1.0, 3: 0.5, 4: 0.0},
        "a/b": {0: 0.5, 1: 0.5},
    }
    assert path(recipe(SLICES)) == []


def test_slices_of_one_model_each_are_a_path_with_its_scales() -> None:
    data = {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": "a/a", "layer_range": [0, 2]}]},
            {"sources": [{"model": "a/b", "layer_range": [1, 2]}], "input_scale": 0.5},
        ],
    }
    assert path(recipe(data)) == [("a/a", 0, 1.0), ("a/a", 1, 1.0), ("a/b", 1, 0.5)]


def test_mean_of_maps_is_cell_by_cell() -> None:
    one = Map("", "w", "m", {ALL: {0: 1.0, 1: 2.0}}, {"norm": 4.0})
    two = Map("", "w", "m", {ALL: {0: 3.0, 1: 0.0}}, {"norm": 0.0})
    found = mean(one, [one, two])
    assert (found.columns, found.outside) == ({ALL: {0: 2.0, 1: 1.0}}, {"norm": 2.0})


def test_recipe_that_does_not_vary_over_depth_has_no_map() -> None:
    plain = {"merge_method": "linear", "models": [{"model": "a/a", "parameters": {"weight": 1}}]}
    assert over_depth(recipe(plain), []) is None


@pytest.mark.parametrize(
    ("values", "value", "shade"),
    [
        ([0.0, 2.0], 0.0, "h0"),
        ([0.0, 2.0], 2.0, "h16"),
        ([0.5, 2.0], 0.0, "h0"),
        ([-1.0, 0.5], 0.0, "d8"),
        ([-1.0, 0.5], -1.0, "d0"),
        ([-1.0, 0.5], 1.0, "d16"),
        ([0.0, 0.0], 0.0, "h0"),
        ([0.9, 1.0], 0.9, "h0"),
    ],
)
def test_shade_says_where_a_number_lies_between_the_ends(
    values: list[float], value: float, shade: str
) -> None:
    assert Shades(values).of(value) == shade

"""Slices and modules with knobs: what is drawn is what the plan's steps hold, layer by layer."""

from __future__ import annotations

from typing import Any

import pytest

from merge_core.errors import MergeError, Problems
from merge_core.merge.nested import plan
from merge_core.parents.protocol import Parent
from merge_core.recipe.read import parse
from search.space.inverse import point_of
from search.space.space import Space
from search.space.starting_points import defaults
from search.spec.knob_places import ELSEWHERE
from tests.search.space import test_pull_back
from tests.search.space.test_pull_back import NAMES, RANGE
from tests.search.space.test_space import draw, llama, template_of
from tests.search.spec.test_recipe_template import problems_of

parents = test_pull_back.parents
SPANS = [(0, 1), (0, 2)]
FIRST = "input_layernorm.weight"


def source(name: str, first: Any, end: Any, **parameters: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"model": NAMES.get(name, name), "layer_range": [first, end]}
    return {**found, "parameters": parameters} if parameters else found


def stacked(*slices: Any, method: str = "linear", **more: Any) -> dict[str, Any]:
    return {"merge_method": method, "slices": list(slices), "dtype": "float32", **more}


def one(*sources: Any, **parameters: Any) -> dict[str, Any]:
    found = {"sources": list(sources)}
    return {**found, "parameters": parameters} if parameters else found


def space_of(data: Any, parents: dict[str, Parent]) -> Space:
    names = {
        name: parents[name].architecture.in_order(parents[name].tensors) for name in NAMES.values()
    }
    return Space(template_of(data), names[NAMES["add"]], parents=names)


MERGED = stacked(
    one(
        source("add", 0, 3, weight={**RANGE, "per": "layer"}),
        source("sort", 1, 4, weight=[{"filter": "mlp", "value": RANGE}, {"value": 0.3}]),
    ),
    one(
        source("rev", 1, 3, weight={**RANGE, "gradient": 2}),
        source("base", 2, 4, weight={**RANGE, "per": "tensor"}),
    ),
)


def held(space: Space, parents: dict[str, Parent], point: dict[str, Any]) -> dict[str, Any]:
    """Return tensor -> the values that a plan of the point's recipe holds for its operands."""
    return {step.tensor: step.values for step in plan(space.recipe(point), parents).steps}


def test_every_layer_of_a_slice_has_the_number_that_was_drawn_for_it(
    parents: dict[str, Parent],
) -> None:
    space = space_of(MERGED, parents)
    point = draw(space)
    found = held(space, parents, point)
    for i in range(3):
        weight = found[f"model.layers.{i}.{FIRST}"][0]["weight"]
        assert weight == point[f"slice 1/weight/add/layer {i}"]
    for i in (0, 1):
        rev, base = found[f"model.layers.{3 + i}.{FIRST}"]
        assert rev["weight"] == pytest.approx(point[f"slice 2/weight/rev/anchor {i}"])
        assert base["weight"] == point[f"slice 2/weight/base/model.layers.{2 + i}.{FIRST}"]
    assert found["model.embed_tokens.weight"][0]["weight"] == point["slice 1/weight/add/layer 0"]
    norm, up = found["model.norm.weight"], found["model.layers.1.mlp.up_proj.weight"]
    assert norm[1]["weight"] == point["slice 2/weight/base/model.norm.weight"]
    assert up[1]["weight"] == point["slice 1/weight/sort/mlp"]
    assert not space.idle


def test_slopes_of_slices_equal_finite_differences(parents: dict[str, Parent]) -> None:
    space = space_of(MERGED, parents)
    assert len(space.smooth) == len(space.dimensions)
    test_pull_back.check(space, parents)


def test_slopes_of_what_slices_share_equal_finite_differences(parents: dict[str, Parent]) -> None:
    t = [{"filter": "layers.3.", "value": RANGE | {"high": 0.9}}, {"value": RANGE | {"high": 0.8}}]
    data = stacked(
        one(source("base", 0, 3), source("add", 1, 4), t={**RANGE, "high": 0.9, "per": 2}),
        one(source("base", 1, 3), source("rev", 1, 3), t=t),
        method="slerp",
        base_model=NAMES["base"],
    )
    space = space_of(data, parents)
    assert {d.name for d in space.dimensions} == {
        *("slice 1/t/layers 0-1", "slice 1/t/layer 2", "slice 2/t/layers.3.", "slice 2/t"),
    }
    test_pull_back.check(space, parents)


T = [
    {"filter": "self_attn", "value": {**RANGE, "gradient": 3}},
    {"filter": "mlp", "value": {**RANGE, "per": "layer"}},
    {"value": {**RANGE, "per": "tensor"}},
]
USUAL = {"merge_method": "slerp", "base_model": NAMES["base"], "dtype": "float32"}
WHOLE = [one(source("base", 0, 4), source("add", 0, 4))]


@pytest.mark.parametrize("module", [False, True])
def test_a_slice_over_all_layers_is_searched_as_models_are(
    parents: dict[str, Parent], module: bool
) -> None:
    part = {"slices": WHOLE}
    sliced = {"modules": {"default": {**part, "parameters": {"t": T}}}} if module else part
    models = [{"model": NAMES["base"]}, {"model": NAMES["add"]}]
    ours = space_of(USUAL | sliced | ({} if module else {"parameters": {"t": T}}), parents)
    theirs = space_of(USUAL | {"models": models, "parameters": {"t": T}}, parents)
    names = {d.name.removeprefix("default/"): d.name for d in ours.dimensions}
    assert [*names] == [d.name for d in theirs.dimensions]
    point = draw(theirs)
    ours_of = {names[name]: value for name, value in point.items()}

    def settled(space: Space, values: dict[str, Any]) -> dict[str, Any]:
        return {x.tensor: x.shared["t"] for x in plan(space.recipe(values), parents).steps}

    found, wanted = settled(ours, ours_of), settled(theirs, point)
    assert found.keys() == wanted.keys()
    for tensor, t in wanted.items():
        assert found[tensor] == pytest.approx(t), tensor
    assert not ours.idle
    test_pull_back.check(ours, parents, ours_of)
    recipe = ours.recipe(ours_of)
    assert point_of(ours, recipe) == pytest.approx(ours_of)


def test_layers_that_a_slice_leaves_out_are_not_among_those_of_its_knobs(
    parents: dict[str, Parent],
) -> None:
    part = {"slices": [one(source("base", 1, 4), source("add", 0, 3))]}
    per = {**RANGE, "per": "layer"}
    space = space_of(USUAL | part | {"parameters": {"t": per}}, parents)
    assert [d.name for d in space.dimensions] == [f"t/layer {i}" for i in range(3)]


CUT = {"low": 1, "high": 4, "tied": "cut"}


def test_a_cut_that_two_slices_share_moves_both(parents: dict[str, Parent]) -> None:
    data = stacked(one(source("add", 0, CUT)), one(source("sort", CUT, 4)), method="passthrough")
    space = space_of(data, parents)
    assert [d.name for d in space.dimensions] == ["cut"]
    for cut in (1, 3, 4):
        slices = space.recipe({"cut": float(cut)}).slices
        assert [s.sources[0].layer_range for s in slices] == [(0, cut), (cut, 4)]
        assert type(slices[0].sources[0].layer_range[1]) is int
    assert defaults(space).keys() == {"cut"}


def test_modules_are_searched_as_models_and_as_slices(parents: dict[str, Parent]) -> None:
    own = [
        {"model": NAMES["add"], "parameters": {"weight": {**RANGE, "per": "layer"}}},
        {"model": NAMES["rev"], "parameters": {"weight": 0.5}},
    ]
    whole = {"merge_method": "linear", "modules": {"default": {"models": own}}}
    space = space_of(whole, parents)
    point = draw(space)
    found = held(space, parents, point)
    weights = [found[f"model.layers.{i}.{FIRST}"][0]["weight"] for i in range(4)]
    assert weights == [point[f"default/weight/add/layer {i}"] for i in range(4)]
    test_pull_back.check(space, parents, point)
    sliced = {"merge_method": "linear", "modules": {"default": {"slices": MERGED["slices"]}}}
    inside = space_of(sliced, parents)
    assert {d.name.removeprefix("default/") for d in inside.dimensions} == {
        d.name for d in space_of(MERGED, parents).dimensions
    }


def test_a_layer_that_a_model_does_not_have_is_named_before_anything_is_drawn() -> None:
    knob = {"low": 2, "high": 9}
    data = stacked(one(source("a", 0, 3)), one(source("b", 1, knob)), method="passthrough")
    names = {"a": llama(4), "b": llama(6)}
    problems: Problems = []
    Space(template_of(data), llama(4), problems, parents=names)
    assert problems == [
        (
            "recipe.slices[1].sources[0].layer_range",
            "b has 6 layers, got [1, 9]; the last number is the layer after the last",
        )
    ]


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (
            stacked(
                *(one(source("a", i, i + 1, weight=1.0)) for i in (0, 1)),
                parameters={"weight": {**RANGE, "per": "layer"}},
            ),
            "recipe.parameters.weight: per needs one number of layers; give it inside of each",
        ),
        (
            stacked(one(source("a", 0, {"low": 1, "high": 2}, weight={**RANGE, "cosine": 1}))),
            "recipe.slices[0].sources[0].parameters.weight: cosine needs a slice whose layer_range",
        ),
        (
            {
                "merge_method": "linear",
                "modules": {
                    "vision": {"models": [{"model": "a", "parameters": {"weight": RANGE}}]}
                },
            },
            "recipe.modules.vision: a has no such module; it has default",
        ),
    ],
    ids=["over all slices", "over a moving slice", "no such module"],
)
def test_a_knob_that_cannot_be_spread_is_refused(data: Any, rule: str) -> None:
    with pytest.raises(MergeError) as caught:
        Space(template_of(data), llama(4))
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("slices", "path", "rule"),
    [
        (
            [one(source("a", {"low": 0, "high": 3}, {"low": 2, "high": 4}))],
            "slices[0].sources",
            "a range may begin behind its end: [(3, 2)]; keep the ends' ranges apart",
        ),
        (
            [one(source("a", 0, {"low": 1, "high": 2}), source("b", 0, {"low": 1, "high": 2}))],
            "slices[0].sources",
            f"sources may have other numbers of layers, {SPANS}; give the knobs one `tied:`",
        ),
        (
            [one(source("a", 0, {"low": 1.5, "high": 3}))],
            "slices[0].sources[0].layer_range[1]",
            "expected whole numbers",
        ),
        (
            [one(source("a", 0, {"low": 1, "high": 3, "per": "layer"}))],
            "slices[0].sources[0].layer_range[1].per",
            "a layer's number is one whole number; omit it",
        ),
        (
            [one({**source("a", 0, 2), "take_part": {"choices": [True, False]}})],
            "slices[0].sources[0].take_part",
            ELSEWHERE,
        ),
    ],
    ids=["behind its end", "other lengths", "half a layer", "per layer", "take part"],
)
def test_knobs_that_do_not_fit_a_slice_are_problems_of_the_file(
    slices: Any, path: str, rule: str
) -> None:
    data = stacked(*slices, parameters={"weight": 1.0})
    assert (f"recipe.{path}", rule) in problems_of(data)


def test_shares_of_a_sum_are_those_of_one_slice(parents: dict[str, Parent]) -> None:
    sum_ = {"sum": 1}
    data = stacked(
        one(source("add", 0, 2, weight=sum_), source("sort", 0, 2, weight=sum_)),
        one(source("add", 2, 4, weight=sum_), source("rev", 2, 4, weight=sum_)),
    )
    space = space_of(data, parents)
    found = held(space, parents, draw(space))
    for i in range(4):
        values = found[f"model.layers.{i}.{FIRST}"]
        assert sum(x["weight"] for x in values) == pytest.approx(1.0)
    assert found[f"model.layers.0.{FIRST}"] != found[f"model.layers.3.{FIRST}"]


def test_a_method_that_is_chosen_leaves_out_what_the_others_use(parents: dict[str, Parent]) -> None:
    methods = {"choices": ["ties", "linear"]}
    own = {"weight": RANGE, "density": {"low": 0.2, "high": 1.0}}
    data = stacked(
        one(source("add", 0, 2, **own), source("base", 0, 2, weight=0.1)),
        method=methods,
        base_model=NAMES["base"],
    )
    space = space_of(data, parents)
    point = draw(space) | {"merge_method": "linear"}
    assert "slice 1/density/add" not in space.active(point)
    linear = space.recipe({k: x for k, x in point.items() if k in space.active(point)})
    assert dict(linear.slices[0].sources[0].parameters).keys() == {"weight"}


@pytest.mark.parametrize("data", [MERGED, {"modules": MERGED["slices"]}], ids=["slices", "modules"])
def test_a_recipe_of_slices_is_read_back_to_its_point(
    data: Any, parents: dict[str, Parent]
) -> None:
    if "modules" in data:
        data = {"merge_method": "linear", "modules": {"default": {"slices": data["modules"]}}}
    space = space_of(data, parents)
    point = draw(space)
    found = point_of(space, space.recipe(point))
    assert found == {name: pytest.approx(value) for name, value in point.items()}


def test_a_cut_is_read_back_and_other_slices_are_refused(parents: dict[str, Parent]) -> None:
    data = stacked(one(source("add", 0, CUT)), one(source("sort", CUT, 4)), method="passthrough")
    space = space_of(data, parents)
    assert point_of(space, space.recipe({"cut": 2.0})) == {"cut": 2.0}
    uneven = stacked(one(source("add", 0, 2)), one(source("sort", 3, 4)), method="passthrough")
    three = stacked(*data["slices"][:1], one(source("rev", 0, 4)), method="passthrough")
    three["slices"][0] = one(source("add", 0, 2))
    for other in (uneven, three):
        recipe = parse(other, "recipe", [])
        assert recipe is not None
        with pytest.raises(MergeError, match=r"recipe\.slices: this recipe has other models"):
            point_of(space, recipe)


def test_a_value_that_the_study_cannot_say_is_named_with_its_tensor(
    parents: dict[str, Parent],
) -> None:
    space = space_of(MERGED, parents)
    plain = space.recipe(draw(space)).plain()
    plain["slices"][0]["sources"][1]["parameters"]["weight"][1]["value"] = 0.4
    recipe = parse(plain, "recipe", [])
    assert recipe is not None
    with pytest.raises(MergeError, match=r"this recipe has 0\.4 for .*, the nearest .* is 0\.3"):
        point_of(space, recipe)

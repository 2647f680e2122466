"""Knobs under `moe:`: where they may stand, their names, and the recipes that they make."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from merge_core.errors import MergeError
from merge_core.recipe import read as recipe_reader
from search.space.inverse import point_of
from search.space.space import Space
from search.space.starting_points import baselines, defaults
from search.spec import recipe_template
from search.spec.mixture_knobs import TRAINED, layers_of
from search.spec.recipe_template import Template
from tests.search.spec.test_recipe_template import problems_of
from tests.search.toy import TENSORS, spec_of

WHICH = {"choices": [True, False]}
EXPERTS = [
    {"source_model": "org/one", "positive_prompts": ["add"], "take_part": WHICH},
    {"source_model": "org/two", "positive_prompts": ["sort"], "take_part": WHICH},
    {
        "source_model": "org/three",
        "positive_prompts": ["rev"],
        "gate_scale": {"low": 0.5, "high": 2.0},
        "take_part": WHICH,
    },
]
DATA: dict[str, Any] = {
    "merge_method": "task_arithmetic",
    "base_model": "org/base",
    "models": [{"model": "org/one", "parameters": {"weight": {"low": 0.0, "high": 1.0, "per": 2}}}],
    "moe": {
        "gate_mode": {"choices": ["hidden", TRAINED]},
        "experts_per_token": {"low": 1, "high": 2},
        "temperature": {"low": 0.1, "high": 10.0, "log": True},
        "dense_layers": {"per": "layer"},
        "experts": EXPERTS,
    },
    "dtype": "float32",
}


def data_of(**moe: Any) -> dict[str, Any]:
    found = copy.deepcopy(DATA)
    found["moe"] |= moe
    return {**found, "moe": {key: x for key, x in found["moe"].items() if x is not None}}


def template_of(data: dict[str, Any]) -> Template:
    problems: list[tuple[str, str]] = []
    found = recipe_template.parse(data, "recipe", problems)
    assert found is not None, problems
    return found


def space_of(data: dict[str, Any]) -> Space:
    return Space(template_of(data), TENSORS)


def recipe_of(space: Space, **drawn: Any) -> Any:
    point = {**defaults(space), **drawn}
    active = space.active(point)
    return space.recipe({name: x for name, x in point.items() if name in active})


def test_every_knob_has_a_name_that_can_be_read() -> None:
    space = space_of(DATA)
    assert [d.name for d in space.dimensions] == [
        "weight/one/layers 0-1",
        "weight/one/layers 2-3",
        "gate_mode",
        "experts_per_token",
        "temperature",
        *(f"dense_layers/layer {i}" for i in range(4)),
        *("take_part/one", "take_part/two", "gate_scale/three", "take_part/three"),
    ]
    assert space.template.references() == ("org/one", "org/base", "org/two", "org/three")
    assert space.smooth == frozenset()


def test_defaults_are_those_of_recipes() -> None:
    recipe = recipe_of(space_of(DATA))
    assert recipe.moe.plain() == {
        "experts": [
            {"source_model": f"org/{name}", "positive_prompts": [prompt]}
            for name, prompt in (("one", "add"), ("two", "sort"), ("three", "rev"))
        ]
    }


def test_drawn_values_stand_where_the_recipe_has_them() -> None:
    drawn = {"temperature": 0.5, "gate_scale/three": 1.5, "dense_layers/layer 2": True}
    moe = recipe_of(space_of(DATA), **drawn, **{"take_part/one": False}).moe
    assert [expert.source_model for expert in moe.experts] == ["org/two", "org/three"]
    assert (moe.temperature, moe.experts[1].gate_scale, moe.dense_layers) == (0.5, 1.5, (2,))


@pytest.mark.parametrize(
    ("k", "out", "there"),
    [
        (1, ("one", "two"), ["three"]),
        (1, ("one", "two", "three"), ["one"]),
        (2, ("one", "two"), ["one", "three"]),
        (2, ("one", "two", "three"), ["one", "two"]),
    ],
)
def test_as_many_experts_remain_as_a_token_is_sent_to(k: int, out: Any, there: list[str]) -> None:
    drawn = {"experts_per_token": k, **{f"take_part/{name}": False for name in out}}
    moe = recipe_of(space_of(DATA), **drawn).moe
    assert [expert.source_model for expert in moe.experts] == [f"org/{name}" for name in there]


def test_what_training_settles_or_an_expert_that_is_out_has_no_knobs() -> None:
    space = space_of(DATA)
    assert space.deciding == (
        *("gate_mode", "experts_per_token"),
        *("take_part/one", "take_part/two", "take_part/three"),
    )
    point = defaults(space)
    everything = space.active(point)
    assert everything - space.active({**point, "gate_mode": TRAINED}) == {
        "temperature",
        "gate_scale/three",
    }
    assert everything - space.active({**point, "take_part/three": False}) == {"gate_scale/three"}
    moe = recipe_of(space, gate_mode=TRAINED).moe
    assert (moe.gate_mode, moe.gates, moe.temperature) == (TRAINED, None, 1.0)


def test_one_layer_keeps_its_experts() -> None:
    drawn = {f"dense_layers/layer {i}": True for i in range(4)}
    assert recipe_of(space_of(DATA), **drawn).moe.dense_layers == (0, 1, 2)
    assert layers_of([False, True, False]) == [1]


def test_neighbouring_layers_share_one_choice() -> None:
    space = space_of(data_of(dense_layers={"per": 2}))
    assert recipe_of(space, **{"dense_layers/layers 2-3": True}).moe.dense_layers == (2, 3)


def test_moe_alone_is_the_base_model_with_experts() -> None:
    short = {"moe": {"base_model": "org/base", "dtype": "float32", "experts": EXPERTS}}
    template = template_of(copy.deepcopy(short))
    assert template.references() == ("org/base", "org/one", "org/two", "org/three")
    plain = recipe_of(Space(template, TENSORS)).plain()
    assert plain["merge_method"] == "passthrough"
    assert (plain["models"], plain["dtype"]) == ([{"model": "org/base"}], "float32")


@pytest.mark.parametrize(
    ("change", "path", "rule"),
    [
        ({"experts_per_token": {"low": 1, "high": 4}}, "experts_per_token", "1 to 3"),
        ({"experts_per_token": {"choices": [1, 1.5]}}, "experts_per_token", "whole numbers"),
        ({"temperature": {"low": 0.0, "high": 2.0}}, "temperature", "above 0"),
        ({"temperature": {"low": 0.1, "high": 2, "per": 2}}, "temperature.per", "one value"),
        ({"gate_mode": {"choices": ["hidden", "traind"]}}, "gate_mode", "did you mean 'trained'"),
        ({"gate_mode": {"low": 0, "high": 1}}, "gate_mode", "expected a gate mode or choices"),
        ({"dense_layers": {"choices": [0, 1]}}, "dense_layers.choices", "give per only"),
        ({"dense_layers": {"per": "tensor"}}, "dense_layers", "expected {per: layer}"),
        ({"architecture": {"choices": ["mixtral", "qwen2"]}}, "architecture", "in a mixture"),
        (
            {"gate_mode": TRAINED, "temperature": 2.0},
            "temperature",
            "the training of the routers settles it; remove it",
        ),
        ({"gate_mode": TRAINED}, "experts[2].gate_scale", "settles it"),
    ],
)
def test_wrong_knobs_are_named_by_their_place(change: Any, path: str, rule: str) -> None:
    found = problems_of(data_of(**change))
    assert any(at == f"recipe.moe.{path}" and rule in text for at, text in found), found


def test_shared_expert_always_takes_part() -> None:
    shared = [{"source_model": "org/base", "positive_prompts": ["all"], "take_part": WHICH}]
    (found,) = problems_of(data_of(shared_experts=shared))
    assert found[0] == "recipe.moe.shared_experts[0].take_part"


def test_experts_outside_of_moe_are_refused() -> None:
    data = {"base_model": "org/base", "experts": EXPERTS}
    assert ("recipe.experts", "a study has experts under `moe:`; put them there") in problems_of(
        data
    )


def test_layer_path_of_a_mixture_is_refused() -> None:
    path = {"path": {"parents": ["org/one", "org/two"]}}
    data = {"merge_method": "passthrough", "slices": path, "moe": DATA["moe"]}
    assert any(at == "recipe.moe" and "layer path" in rule for at, rule in problems_of(data))


def test_seed_is_searched_where_routers_are_drawn() -> None:
    seeded = {**data_of(gate_mode="random"), "seed": {"low": 0, "high": 9}}
    assert recipe_of(space_of(seeded), seed=7).seed == 7
    with pytest.raises(AssertionError, match="draws no masks"):
        template_of({**DATA, "seed": {"low": 0, "high": 9}})


@pytest.mark.parametrize(
    "drawn",
    [
        {},
        {"temperature": 3.0, "gate_scale/three": 0.75, "dense_layers/layer 1": True},
        {"gate_mode": TRAINED, "experts_per_token": 1, "take_part/two": False},
    ],
)
def test_mixture_is_read_back_to_the_point_that_made_it(drawn: Any) -> None:
    space = space_of(DATA)
    recipe = recipe_of(space, **drawn)
    point = {**defaults(space), **drawn}
    active = space.active(point)
    found = point_of(space, recipe)
    assert {name: found[name] for name in active} == {name: point[name] for name in active}


def test_mixture_of_other_experts_is_no_point() -> None:
    space = space_of(DATA)
    plain = recipe_of(space).plain()
    plain["moe"]["experts"].reverse()
    other = recipe_reader.parse(plain, "recipe", [])
    assert other is not None
    with pytest.raises(MergeError, match=r"recipe\.moe\.experts: the study has org/one, org/two"):
        point_of(space, other)
    plain.pop("moe")
    dense = recipe_reader.parse(plain, "recipe", [])
    assert dense is not None
    with pytest.raises(MergeError, match=r"recipe\.moe: the study has experts, this recipe none"):
        point_of(space, dense)


STUDY = """
name: mixed
recipe: {moe: {base_model: org/base, experts_per_token: {choices: [1, 2]}, gate_mode: trained,
  experts: [{source_model: org/one}, {source_model: org/two}]}}
score: [{evaluator: lm_eval, task: gain}]
"""


def test_baselines_are_all_models_alone_the_experts_mean_and_the_defaults(tmp_path: Any) -> None:
    spec = spec_of(STUDY, tmp_path)
    found = baselines(spec, Space(spec.template, TENSORS))
    assert [one.name for one in found] == [
        *("parent:org/base", "parent:org/one", "parent:org/two", "uniform", "defaults"),
    ]
    assert [source.model for source in found[3].recipe.models] == ["org/one", "org/two"]


def test_vllm_trains_no_routers(tmp_path: Any) -> None:
    with pytest.raises(MergeError, match=r"engine\.name: gate_mode: trained needs .*, got vllm"):
        spec_of(f"{STUDY}engine: {{name: vllm}}\n", tmp_path)


def test_knobs_of_what_experts_replace_are_told(tmp_path: Any) -> None:
    data = data_of(dense_layers=None)
    data["models"][0]["parameters"]["weight"]["per"] = "tensor"
    idle = space_of(data).idle
    assert idle == [f"weight/one/model.layers.{i}.mlp.up_proj.weight" for i in range(4)]
    data["moe"]["dense_layers"] = {"per": "layer"}
    assert space_of(data).idle == []


@pytest.mark.parametrize("wrong", [5, [5], {}, {"choices": 5}, {"low": 1}, None, "x", [[]]])
@pytest.mark.parametrize("key", ["experts", "shared_experts", "gate_mode", "experts_per_token"])
def test_what_is_wrong_is_a_problem_not_an_error(key: str, wrong: Any) -> None:
    data = copy.deepcopy(DATA)
    data["moe"][key] = wrong
    problems: list[tuple[str, str]] = []
    found = recipe_template.parse(data, "recipe", problems)
    assert (found is None) == bool(problems)
    assert all(path.startswith("recipe") for path, _ in problems)

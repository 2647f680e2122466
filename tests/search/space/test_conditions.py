"""What is drawn only for some trials: methods, who takes part, seeds; and knobs that share."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import optuna
import pytest
import scipy.special
import yaml

from merge_core.errors import MergeError
from merge_core.merge.nested import plan
from merge_core.parents.protocol import Parent
from search.samplers.ask import ask
from search.samplers.shipped import make_random, make_tpe
from search.space.space import Space
from search.space.starting_points import baselines, defaults, levels
from tests.search import toy
from tests.search.space.test_pull_back import NAMES, check, of_quickstart, parents  # noqa: F401
from tests.search.space.test_space import (
    RANGE,
    draw,
    layer_values,
    llama,
    names,
    space_of,
    template_of,
    values,
)

METHODS = """
merge_method: {choices: [linear, ties, dare_ties]}
base_model: base
models:
  - model: base
  - model: one
    parameters:
      weight: {low: 0.0, high: 1.0, per: 2}
      density: {low: 0.1, high: 1.0}
  - {model: two, parameters: {weight: 0.5, density: 0.5}}
  - {model: three, take_part: {choices: [true, false]}, parameters: {weight: {low: 0, high: 1}}}
parameters: {lambda: {low: 0.5, high: 1.5}}
seed: {low: 0, high: 9}
"""
ALWAYS = {"merge_method", "take_part/three", "weight/one/layers 0-1", "weight/one/layers 2-3"}


def methods() -> Space:
    return Space(template_of(yaml.safe_load(METHODS)), llama(4))


def asked(space: Space, seed: int = 0, maker: Any = make_random, study: Any = None) -> Any:
    study = study or optuna.create_study()
    settled = len(study.trials)
    return ask(study, space.distributions(), maker, None, seed, settled, space)


@pytest.mark.parametrize(
    ("method", "taken", "more"),
    [
        ("linear", True, {"weight/three"}),
        ("linear", False, set()),
        ("ties", True, {"weight/three", "density/one", "lambda"}),
        ("ties", False, {"density/one", "lambda"}),
        ("dare_ties", False, {"density/one", "lambda", "seed"}),
    ],
)
def test_only_what_the_chosen_method_and_models_use_is_active(
    method: str, taken: bool, more: set[str]
) -> None:
    space = methods()
    chosen = {"merge_method": method, "take_part/three": taken}
    active = space.active(chosen)
    assert active == ALWAYS | more
    point = {k: v for k, v in draw(space).items() if k in active} | chosen
    recipe = space.recipe(point)  # it needs no other values
    assert recipe == space.recipe(draw(space) | chosen)
    assert ("three" in [s.model for s in recipe.models]) == taken
    assert recipe.seed == (point["seed"] if method == "dare_ties" else 0)


def test_a_trial_has_the_active_knobs_alone() -> None:
    space, seen = methods(), set()
    for seed in range(20):
        params = asked(space, seed).params
        assert params.keys() == space.active(params)
        seen.add(frozenset(params))
    assert len(seen) == 6


def test_conditional_trials_are_drawn_again_by_a_study_that_has_only_what_was_stored() -> None:
    space, study = methods(), optuna.create_study()
    for number in range(25):
        running = asked(space, 3, make_tpe, study)
        again = optuna.create_study()
        for old in study.trials[:number]:
            kept = {k: getattr(old, k) for k in ("state", "value", "params", "distributions")}
            again.add_trial(optuna.trial.create_trial(**kept))
        assert asked(space, 3, make_tpe, again).params == running.params
        study.tell(running, toy.noise(str(running.params)))


def test_seeds_are_whole_numbers() -> None:
    space = methods()
    point = draw(space) | {"merge_method": "dare_ties"}
    assert type(space.recipe(point).seed) is int
    assert space.distributions()["seed"] == optuna.distributions.FloatDistribution(0, 9, step=1)
    assert defaults(space)["seed"] == 0


def test_every_model_takes_part_by_default_and_baselines_have_no_params_beyond_what_counts() -> (
    None
):
    space = methods()
    point = defaults(space)
    assert point["take_part/three"] is True
    text = toy.STUDY.replace("task_arithmetic", "{choices: [task_arithmetic, ties]}").replace(
        "high: 1.5}}}", "high: 1.5}, density: {low: 0.1, high: 1}}}"
    )
    spec = toy.spec_of(text, toy.Path("/nowhere"))
    mine = Space(spec.template, toy.TENSORS)
    for baseline in baselines(spec, mine):
        if baseline.params:
            assert baseline.params.keys() == mine.active(baseline.params)
            assert "density/two" not in baseline.params


PARTS = {
    "merge_method": "task_arithmetic",
    "base_model": "base",
    "models": [
        {"model": m, "take_part": {"choices": [True, False]}, "parameters": {"weight": RANGE}}
        for m in ("one", "two", "three")
    ],
}


def test_where_too_few_take_part_the_first_come_back() -> None:
    space = Space(template_of(PARTS), llama(2))
    out = {f"take_part/{m}": False for m in ("one", "two", "three")}
    weights = {f"weight/{m}": 0.5 for m in ("one", "two", "three")}
    assert [s.model for s in space.recipe(out | weights).models] == ["one"]
    assert space.active(out) == {*out, "weight/one"}
    some = {**out, "take_part/three": True}
    assert [s.model for s in space.recipe(some | weights).models] == ["three"]
    linear = {**PARTS, "merge_method": "linear"}
    del linear["base_model"]
    least = Space(template_of(linear), llama(2))
    assert len(least.recipe(some | weights).models) >= 1


def test_places_that_are_tied_share_their_numbers() -> None:
    weight = {**RANGE, "per": 2, "tied": "both"}
    models = [
        {"model": "one", "parameters": {"weight": weight}},
        {
            "model": "two",
            "parameters": {"weight": [{"filter": "mlp", "value": weight}, {"value": 9}]},
        },
    ]
    space = space_of(0, models=models)
    assert names(space) == ["both/layers 0-1", "both/layers 2-3"]
    point = {"both/layers 0-1": 0.25, "both/layers 2-3": 0.75}
    recipe = space.recipe(point)
    assert layer_values(recipe, 4) == [0.25, 0.25, 0.75, 0.75]
    two = values(recipe, llama(4), "two")
    assert [two[f"model.layers.{i}.mlp.up_proj.weight"] for i in range(4)] == [
        0.25,
        0.25,
        0.75,
        0.75,
    ]
    assert [point["both/layers 0-1"] for point in levels(space).values()] == pytest.approx(
        [0.3, 0.6, 0.9, 1.2, 1.5]
    )


def test_a_tied_knob_is_active_where_any_of_its_places_is() -> None:
    knob = {**RANGE, "tied": "w"}
    models = [
        {"model": "one", "parameters": {"weight": knob}},
        {"model": "two", "take_part": {"choices": [True, False]}, "parameters": {"weight": knob}},
    ]
    space = space_of(0, models=models)
    assert space.active({"take_part/two": False}) == {"take_part/two", "w"}


def test_a_tied_knob_is_idle_where_none_of_its_places_reaches_a_tensor() -> None:
    knob = {**RANGE, "tied": "w"}
    cases = [[{"filter": x, "value": knob}, {"value": 1}] for x in ("visual", "audio", "mlp")]
    models = [{"model": m, "parameters": {"weight": w}} for m, w in zip("abc", cases, strict=True)]
    assert space_of(0, models=models[:2]).idle == ["w"]
    assert space_of(0, models=models).idle == []
    assert methods().idle == []


@pytest.mark.parametrize("unit", [{}, {"per": "layer"}, {"per": "tensor"}, {"gradient": 3}])
@pytest.mark.parametrize("total", [1.0, 1.5])
def test_shares_of_a_sum_are_the_softmax_of_the_drawn_numbers(
    unit: dict[str, Any], total: float
) -> None:
    models = [
        {"model": m, "parameters": {"weight": {"sum": total, **unit}}} for m in ("one", "two", "x")
    ]
    space = space_of(0, models=models)
    point = draw(space)
    assert {(d.low, d.high) for d in space.distributions().values()} == {(-3.0, 3.0)}
    recipe = space.recipe(point)
    found = np.array([list(values(recipe, llama(4), m).values()) for m in ("one", "two", "x")])
    assert found.sum(axis=0) == pytest.approx(total)
    if not unit:
        assert found[:, 0] == pytest.approx(total * scipy.special.softmax(list(point.values())))
    uniform = space.recipe(defaults(space))
    assert list(values(uniform, llama(4), "x").values()) == pytest.approx([total / 3] * 15)
    assert levels(space) == {}


def test_a_sum_is_over_the_models_that_take_part() -> None:
    part = {"take_part": {"choices": [True, False]}}
    models = [
        {"model": m, **(part if m == "x" else {}), "parameters": {"weight": {"sum": 1}}}
        for m in ("one", "two", "x")
    ]
    space = space_of(0, models=models)
    recipe = space.recipe({"take_part/x": False, "weight/one": 0.3, "weight/two": -0.4})
    found = [dict(source.parameters)["weight"] for source in recipe.models]
    assert found == pytest.approx(list(scipy.special.softmax([0.3, -0.4])))


def test_a_sum_whose_models_decide_other_tensors_is_refused() -> None:
    knob = {"sum": 1, "per": "tensor"}
    last = {"filter": "proj", "value": knob}
    models = [
        {"model": "one", "parameters": {"weight": [last, {"value": 0.5}]}},
        {
            "model": "two",
            "parameters": {"weight": [{"filter": "mlp", "value": 1.0}, last, {"value": 1}]},
        },
    ]
    with pytest.raises(
        MergeError, match=r"models\[1\].* decides other tensors than recipe.models\[0"
    ):
        space_of(0, models=models)


@pytest.mark.parametrize(
    "unit", [{"per": "layer"}, {"per": 2}, {"per": [[0, 0], [1, 5]]}, {"gradient": 3}]
)
def test_ordered_values_never_fall(unit: dict[str, Any]) -> None:
    space = space_of({"low": 0.1, "high": 1.5, "ordered": True, **unit}, 6)
    for seed in range(10):
        found = layer_values(space.recipe(draw(space, seed)), 6)
        assert all(a <= b for a, b in pairwise(found))
        assert 0.1 <= found[0] <= found[-1] <= 1.5
    ends = dict.fromkeys(names(space), 1.0)
    assert layer_values(space.recipe(ends), 6) == [1.5] * 6
    assert layer_values(space.recipe(dict.fromkeys(ends, 0.0)), 6) == pytest.approx([0.1] * 6)
    assert set(layer_values(space.recipe(defaults(space)), 6)) == {1.0}


def test_an_ordered_knob_reaches_every_sequence_that_does_not_fall() -> None:
    wanted = [0.2, 0.2, 0.9, 1.5]
    shares = [(b - a) / (1.5 - a) for a, b in pairwise([0.0, *wanted])]
    space = space_of({**RANGE, "ordered": True, "per": "layer"})
    point = dict(zip(names(space), shares, strict=True))
    assert layer_values(space.recipe(point), 4) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        ([{**RANGE, "tied": "w", "per": 2}, {**RANGE, "tied": "w", "per": 2}, 0.3], False),
        (
            [{"sum": 1, "per": "layer"}, {"sum": 1, "per": "layer"}, {"sum": 1, "per": "layer"}],
            True,
        ),
        ([{"sum": 2, "cosine": 2}, {"sum": 2, "cosine": 2}, {"sum": 2, "cosine": 2}], False),
        (
            [{**RANGE, "ordered": True, "gradient": 3}, {**RANGE, "ordered": True, "per": 1}, 0.1],
            True,
        ),
        ([{"low": -1.0, "high": 1.0}, {"low": 0.1, "high": 2, "log": True, "per": 2}, RANGE], True),
    ],
)
def test_slopes_of_shared_summed_and_ordered_knobs(
    weights: list[Any],
    parts: bool,
    parents: dict[str, Parent],  # noqa: F811
) -> None:
    models: list[Any] = [
        {"model": NAMES[name], "parameters": {"weight": weight}}
        for name, weight in zip(("add", "sort", "rev"), weights, strict=True)
    ]
    if parts:
        models[2]["take_part"] = {"choices": [True, False]}
    data = {"merge_method": "task_arithmetic", "base_model": NAMES["base"], "models": models}
    space = of_quickstart(parents, **data)
    point = draw(space)
    for taken in (True, False) if parts else (True,):
        chosen = {"take_part/rev": taken} if parts else {}
        check(space, parents, point | chosen)
    assert plan(space.recipe(point), parents).steps


@pytest.mark.parametrize(
    ("method", "name", "shared", "distribution"),
    [
        ("ties", "density", False, optuna.distributions.FloatDistribution(0.1, 1.0)),
        ("task_arithmetic", "weight", False, optuna.distributions.FloatDistribution(0.0, 1.5)),
        ("ties", "lambda", True, optuna.distributions.FloatDistribution(0.0, 2.0)),
        ("ties", "normalize", True, optuna.distributions.CategoricalDistribution((True, False))),
        ("della", "epsilon", False, None),
        ("multislerp", "eps", True, optuna.distributions.FloatDistribution(1e-10, 1e-4, log=True)),
    ],
)
def test_search_is_the_range_that_the_method_declares(
    method: str, name: str, shared: bool, distribution: Any
) -> None:
    own = {"weight": 0.5, "density": 0.5} if method in ("ties", "della") else {"weight": 0.5}
    models = [{"model": m, "parameters": {**own}} for m in ("one", "two")]
    data: dict[str, Any] = {"merge_method": method, "base_model": "base", "models": models}
    if shared:
        data["parameters"] = {name: "search"}
    else:
        models[0]["parameters"][name] = "search"
    (found,) = Space(template_of(data), llama(2)).distributions().values()
    assert distribution is None or found == distribution


def test_a_unit_alone_spreads_the_declared_range() -> None:
    space = space_of({"per": "layer"})
    assert set(space.distributions().values()) == {optuna.distributions.FloatDistribution(0.0, 1.5)}
    assert len(names(space)) == 4

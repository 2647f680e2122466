"""Each unit's values over depth, against closed forms, and where they reach tensors by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.fft

from merge_core.architecture import layers
from merge_core.errors import MergeError
from search.space.space import Space
from search.space.starting_points import defaults, levels
from tests.places import place
from tests.search.space.test_space import (
    EMBEDDING,
    HEAD,
    NORM,
    PARTS,
    RANGE,
    draw,
    layer_values,
    llama,
    names,
    space_of,
    values,
)
from tests.search.toy import TENSORS


def over_depth(spread: dict[str, Any], numbers: list[float], count: int) -> list[float]:
    """Return the layers' values that the drawn numbers make."""
    space = space_of({**RANGE, **spread}, count)
    recipe = space.recipe(dict(zip(names(space), numbers, strict=True)))
    return layer_values(recipe, count)


def parts(space: Space) -> list[str]:
    return [name.removeprefix("weight/one/") for name in names(space)]


def test_bands_share_a_number_each() -> None:
    space = space_of({**RANGE, "per": [[0, 2], [3, 3], [4, 9]]}, 10)
    assert parts(space) == ["layers 0-2", "layer 3", "layers 4-9"]
    found = over_depth({"per": [[0, 2], [3, 3], [4, 9]]}, [0.1, 0.2, 0.3], 10)
    assert found == [0.1] * 3 + [0.2] + [0.3] * 6


def test_one_number_for_each_tensor_reaches_that_tensor_alone() -> None:
    tensors = llama(24)
    space = space_of({**RANGE, "per": "tensor"}, 24)
    point = draw(space)
    assert len(point) == len(tensors)
    found = values(space.recipe(point), tensors)
    assert {f"weight/one/{name}": value for name, value in found.items()} == point


def test_tensors_of_one_kind_stand_in_one_list() -> None:
    (source, _) = (
        space_of({**RANGE, "per": "tensor"}, 3)
        .recipe({f"weight/one/{name}": float(i) / 10 for i, name in enumerate(llama(3))})
        .plain()["models"]
    )
    found = {case["filter"]: case["value"] for case in source["parameters"]["weight"]}
    assert found["mlp.up_proj.weight"] == [0.4, 0.7, 1.0]
    assert found[HEAD] == 0.2
    assert len(found) == len(PARTS) + 3


@pytest.mark.parametrize(
    "tensors",
    [
        ["norm.weight", "layers.0.norm.weight", "layers.1.norm.weight", "layers.1.pre_norm.weight"],
        ["h.0.w", "h.1.w", "w", "emb.w", "ww"],
        ["h.0.1.w", "h.1.1.w", "h.0.0.1.w", "h.1.0.1.w", "1.w"],  # a kind inside another's name
        ["a.0.w", "a.1.w", "b.0.w", "b.1.w"],  # two stacks
        ["embed.weight", "head.weight"],
    ],
)
@pytest.mark.parametrize("wanted", [None, "1", "w"])
def test_names_that_are_parts_of_others_keep_their_own_numbers(
    tensors: list[str], wanted: str | None
) -> None:
    cases = [{"filter": wanted, "value": {**RANGE, "per": "tensor"}}, {"value": 9.0}]
    mine = [name for name in tensors if wanted is None or wanted in name]
    if not mine:
        return
    space = space_of(cases, tensors=tensors)
    point = draw(space)
    found = _values(space, point, tensors)
    inside = f"weight/one/{wanted}/" if wanted else "weight/one/"
    assert found == {name: point.get(f"{inside}{name}", 9.0) for name in tensors}
    assert len(point) == len(mine)


def _values(space: Space, point: dict[str, Any], tensors: list[str]) -> dict[str, float]:
    stacks = layers.stacks(tensors)
    if len(stacks) == 1:
        return values(space.recipe(point), tensors)
    (setting,) = (dict(s.parameters)["weight"] for s in space.recipe(point).models[:1])
    assert isinstance(setting, tuple)
    return {t: next(c.value for c in setting if c.filter is None or c.filter in t) for t in tensors}  # type: ignore[union-attr,misc,operator]


def test_what_an_earlier_filter_decides_is_no_dimension_of_a_later_one() -> None:
    weight = [
        {"filter": "mlp", "value": {**RANGE, "per": 2}},
        {"filter": "proj", "value": {**RANGE, "per": "tensor"}},
        {"value": {**RANGE, "per": "tensor"}},
    ]
    space = space_of(weight, 2)
    point = draw(space)
    assert parts(space) == [
        "mlp/layers 0-1",
        "proj/model.layers.0.self_attn.q_proj.weight",
        "proj/model.layers.1.self_attn.q_proj.weight",
        EMBEDDING,
        "model.layers.0.input_layernorm.weight",
        "model.layers.1.input_layernorm.weight",
        HEAD,
        NORM,
    ]
    found = values(space.recipe(point), llama(2))
    assert found["model.layers.1.mlp.up_proj.weight"] == point["weight/one/mlp/layers 0-1"]
    assert found[NORM] == point[f"weight/one/{NORM}"]
    assert len(set(found.values())) == len(point)


def test_a_filter_that_leaves_no_tensor_is_refused_by_its_path() -> None:
    weight = [
        {"value": 0.5},
        {"filter": "mlp", "value": {**RANGE, "per": "tensor"}},
    ]
    rule = r"recipe\.models\[0\]\.parameters\.weight\[1\]\.value: no tensor is left for filter 'ml"
    with pytest.raises(MergeError, match=rule):
        space_of(weight)


@pytest.mark.parametrize("count", [1, 2, 5, 24])
def test_all_cosines_are_the_inverse_of_the_orthogonal_discrete_cosine_transform(
    count: int,
) -> None:
    wanted = np.random.default_rng(0).uniform(0.6, 0.9, count)
    halves = scipy.fft.dct(wanted, type=2) / count  # scipy's is twice the sum
    numbers = [float(halves[0] / 2), *map(float, halves[1:])]
    assert over_depth({"cosine": count}, numbers, count) == pytest.approx(list(wanted))


def test_the_first_cosine_is_the_mean_and_the_others_leave_it() -> None:
    found = over_depth({"cosine": 4}, [0.7, 0.1, -0.2, 0.05], 12)
    assert np.mean(found) == pytest.approx(0.7)
    assert parts(space_of({**RANGE, "cosine": 3})) == ["mean", "cosine 1", "cosine 2"]


def test_cosines_beyond_the_range_are_moved_into_it() -> None:
    found = over_depth({"cosine": 2}, [1.4, 0.7], 24)
    wanted = [1.4 + 0.7 * np.cos(np.pi * (i + 0.5) / 24) for i in range(24)]
    assert found == pytest.approx(np.clip(wanted, 0.0, 1.5))
    assert max(found) == 1.5


def test_a_line_is_a_plus_b_times_depth() -> None:
    found = over_depth({"shape": "line"}, [0.2, 1.4], 7)
    assert found == pytest.approx([0.2 + 1.2 * layer / 6 for layer in range(7)])
    assert parts(space_of({**RANGE, "shape": "line"})) == ["first", "last"]


def test_a_kernel_falls_from_its_peak_to_its_floor_within_its_reach() -> None:
    found = over_depth({"shape": "kernel"}, [1.4, 4.0, 2.0, 0.4], 9)
    assert found == pytest.approx([0.4, 0.4, 0.4, 0.9, 1.4, 0.9, 0.4, 0.4, 0.4])
    space = space_of({**RANGE, "shape": "kernel"}, 9)
    assert parts(space) == ["peak", "peak layer", "reach", "floor"]
    ranges = {name: (d.low, d.high) for name, d in space.distributions().items()}
    assert ranges["weight/one/peak layer"] == (0.0, 8.0)
    assert ranges["weight/one/reach"] == (1.0, 9.0)


EVERY = [
    {"per": "layer"},
    {"per": 3},
    {"per": [[0, 1], [2, 5]]},
    {"per": "tensor"},
    {"gradient": 3},
    {"cosine": 3},
    {"shape": "line"},
    {"shape": "kernel"},
]


@pytest.mark.parametrize("spread", EVERY)
def test_every_value_of_every_draw_lies_in_the_range(spread: dict[str, Any]) -> None:
    space = space_of({"low": -0.5, "high": 0.25, **spread}, 6)
    for seed in range(20):
        found = values(space.recipe(draw(space, seed)), llama(6)).values()
        assert -0.5 <= min(found) <= max(found) <= 0.25


@pytest.mark.parametrize("spread", EVERY)
@pytest.mark.parametrize("wanted", ["embed_tokens", "lm_head", "norm", "mlp", "model.norm"])
def test_a_unit_under_a_filter_reaches_its_tensors_and_no_others(
    spread: dict[str, Any], wanted: str
) -> None:
    cases = [{"filter": wanted, "value": {**RANGE, **spread}}, {"value": 9.0}]
    space = space_of(cases, 6)
    found = values(space.recipe(draw(space)), llama(6))
    assert {name for name, value in found.items() if value <= 1.5} == {
        name for name in llama(6) if wanted in name
    }


@pytest.mark.parametrize("spread", [x for x in EVERY if x != {"per": "tensor"}])
def test_embeddings_have_the_first_layers_value_and_norm_and_head_the_last_ones(
    spread: dict[str, Any],
) -> None:
    space = space_of({**RANGE, **spread}, 6)
    recipe = space.recipe(draw(space))
    found, over = values(recipe, llama(6)), layer_values(recipe, 6)
    assert (found[EMBEDDING], found[NORM], found[HEAD]) == (over[0], over[-1], over[-1])
    stated = {case["filter"] for case in recipe.plain()["models"][0]["parameters"]["weight"][:-1]}
    assert stated == {EMBEDDING, NORM, HEAD}


@pytest.mark.parametrize("spread", EVERY)
def test_defaults_and_levels_give_every_tensor_one_value(spread: dict[str, Any]) -> None:
    space = space_of({**RANGE, **spread}, 6)
    for point, wanted in [(defaults(space), 1.0), (levels(space)["weight=0.6"], 0.6)]:
        for name, distribution in space.distributions().items():
            assert distribution._contains(distribution.to_internal_repr(point[name])), name
        found = values(space.recipe(point), llama(6))
        assert found == pytest.approx(dict.fromkeys(llama(6), wanted))


@pytest.mark.parametrize(
    ("spread", "rule"),
    [
        ({"per": [[0, 1], [2, 4]]}, "the bands end at layer 4, the model's layers at 5; they must"),
        ({"per": [[0, 1], [2, 9]]}, "the bands end at layer 9, the model's layers at 5; has no su"),
        ({"cosine": 7}, "cosine: 7 needs as many layers, the model has 6"),
    ],
)
def test_a_unit_that_does_not_fit_the_layers_is_refused(spread: Any, rule: str) -> None:
    with pytest.raises(MergeError, match=rf"recipe\.models\[0\]\.parameters\.weight: {rule}"):
        space_of({**RANGE, **spread}, 6)


def test_all_knobs_that_do_not_fit_the_layers_are_named_at_once() -> None:
    weight = [
        {"filter": "mlp", "value": {**RANGE, "cosine": 9}},
        {"value": {**RANGE, "per": [[0, 9]]}},
    ]
    with pytest.raises(MergeError, match=r"weight\[0\]\.value: .*; recipe.*weight\[1\]\.value: "):
        space_of(weight)


def test_values_over_tensors_do_not_depend_on_the_order_of_names() -> None:
    weight = {**RANGE, "per": "tensor"}
    one, two = (space_of(weight, tensors=x) for x in (TENSORS, TENSORS[::-1]))
    assert names(one) == names(two)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning")
@pytest.mark.parametrize("spread", EVERY)
def test_mergekit_reads_the_same_values_from_the_recipe(spread: dict[str, Any]) -> None:
    pytest.importorskip("mergekit", reason="the oracle is a development dependency")
    from mergekit.config import ConditionalParameter, evaluate_setting

    weight = [
        {"filter": "mlp", "value": {**RANGE, **spread}},
        {"filter": "model.norm", "value": 0.25},
        {"value": {**RANGE, **spread}},
    ]
    count = 6 if isinstance(spread.get("per"), list) else 24
    space = space_of(weight, count)
    recipe = space.recipe(draw(space))
    cases = [
        ConditionalParameter(value=case["value"], filter=case.get("filter"))
        for case in recipe.plain()["models"][0]["parameters"]["weight"]
    ]
    stack = layers.of(llama(count))
    found = {t: evaluate_setting(t, cases, place(stack, t), validate=float) for t in llama(count)}
    assert found == pytest.approx(values(recipe, llama(count)), abs=1e-12)

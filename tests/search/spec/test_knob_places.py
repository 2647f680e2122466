"""What is wrong with knobs that share, sum up, decide on others, or take declared ranges."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from search.spec import recipe_template
from tests.search.spec.test_recipe_template import data_of, parsed, problems_of

BOTH = {"choices": [True, False]}
RANGE = {"low": 0.1, "high": 1.0}
TIES = """
merge_method: ties
base_model: base
models:
  - model: base
  - {model: one, parameters: {weight: 0.5, density: 0.5}}
  - {model: two, parameters: {weight: 0.5, density: 0.5}}
"""
ONE, TWO = (("models", i, "parameters", "weight") for i in (1, 2))
AT = {ONE: "recipe.models[1].parameters.weight", TWO: "recipe.models[2].parameters.weight"}


def with_(*changes: tuple[Any, Any], text: str = TIES) -> Any:
    """Return plain data with values put at places."""
    data = data_of(text)
    for (*place, last), value in changes:
        owner = data
        for key in place:
            owner = owner[key]
        owner[last] = value
    return data


def rules_of(data: Any) -> list[str]:
    return [f"{path}: {rule}" for path, rule in problems_of(data)]


@pytest.mark.parametrize(
    ("first", "second", "rule"),
    [
        ({**RANGE, "tied": "a"}, 0.5, f"{AT[ONE]}: nothing else is tied to 'a'; name it elsewhere"),
        (
            {**RANGE, "tied": "a"},
            {"low": 0.2, "high": 1.0, "tied": "a"},
            f"{AT[TWO]}: tied to 'a', which has another low at {AT[ONE]}",
        ),
        (
            {**RANGE, "tied": "a", "per": 2},
            {"choices": [0.5, 1], "tied": "a"},
            f"{AT[TWO]}: tied to 'a', which has another low and high and choices and per at",
        ),
        ({"sum": 1}, 0.5, f"{AT[ONE]}: a sum of one model's weight is no choice; give it at other"),
        (
            {"sum": 1, "per": 2},
            {"sum": 1, "per": 3},
            f"{AT[TWO]}: one sum has one total and one unit, and {AT[ONE]} says another",
        ),
        ({"sum": 1}, {"sum": 2}, f"{AT[TWO]}: one sum has one total and one unit, and"),
        (
            {"sum": 1},
            [{"filter": "mlp", "value": {"sum": 1}}, {"value": 0.3}],
            f"{AT[ONE]}: a sum of one model's weight is no choice",
        ),
        ([{"sum": 1}, 0.5], {"sum": 1}, f"{AT[ONE]}[0]: sum cannot stand inside a list"),
    ],
)
def test_places_that_share_must_agree(first: Any, second: Any, rule: str) -> None:
    assert any(x.startswith(rule) for x in rules_of(with_((ONE, first), (TWO, second))))


def test_a_sum_belongs_to_models() -> None:
    data = with_((("parameters",), {"weight": {"sum": 1}}))
    assert (
        "recipe.parameters.weight: a sum is one over models; give each its own" in rules_of(data)[0]
    )


@pytest.mark.parametrize(
    ("place", "value", "rule"),
    [
        (("seed",), RANGE, "recipe.seed: "),
        (("models", 1, "take_part"), True, "expected {choices: [true, false]}, got true"),
        (("models", 1, "take_part"), {"choices": [1, 0]}, "expected {choices: [true, false]}, got"),
        (("models", 1, "take_part"), RANGE, "expected {choices: [true, false]}, got"),
        (("models", 0, "take_part"), BOTH, "the base always takes part; omit it"),
        (("take_part",), BOTH, "recipe.take_part: ranges and choices go in parameters"),
        (("seed",), {"choices": [1, 2]}, "recipe.seed: changes nothing: ties draws no masks"),
    ],
)
def test_what_decides_stands_in_its_place_and_form(place: Any, value: Any, rule: str) -> None:
    assert any(rule in x for x in rules_of(with_((place, value))))


@pytest.mark.parametrize(
    ("seed", "rule"),
    [
        ({"low": 0, "high": 2.5}, "high must be low plus a whole number of steps of 1"),
        ({"low": 0.5, "high": 2.5}, "expected whole numbers"),
        ({"choices": [1, 2.5]}, "expected whole numbers"),
        ({"choices": ["a", "b"]}, "expected whole numbers"),
        ({"low": 0, "high": 4, "per": "layer"}, "recipe.seed.per: a seed is one whole number"),
        ({"low": 0, "high": 4, "log": True}, "recipe.seed.log: a seed is one whole number"),
        ({"low": 0}, "recipe.seed.high: required in a range"),
    ],
)
def test_a_seed_is_a_whole_number(seed: Any, rule: str) -> None:
    found = rules_of(with_((("seed",), seed), (("merge_method",), "dare_ties")))
    assert any(rule in x for x in found)


def test_a_method_that_needs_every_model_leaves_no_choice_of_them() -> None:
    models = [{"model": "one", "take_part": BOTH}]
    slerp = {
        "merge_method": "slerp",
        "base_model": "base",
        "models": models,
        "parameters": {"t": 1},
    }
    rule = (
        "recipe.models[0].take_part: 'slerp' needs all of these models; there is nothing to choose"
    )
    assert rules_of(slerp) == [rule]


def test_seeds_and_models_that_take_part_are_knobs() -> None:
    found = parsed(TIES, "models", 1, "take_part", BOTH)
    assert [knob.place for knob in found.knobs] == [("models", 1, "take_part")]
    (seed,) = parsed(TIES.replace("ties", "dare_ties"), "seed", {"low": 0, "high": 9}).knobs
    assert (seed.place, seed.step) == (("seed",), 1)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("weight", {"low": 0.5, "per": 2}, f"{AT[ONE]}.high: required in a range"),
        (
            "weigth",
            "search",
            "no method here declares 'weigth'",
        ),
        ("weight", {"sum": 1, "low": 0}, f"{AT[ONE]}.low: a sum has no ends"),
        ("weight", {"sum": 0}, f"{AT[ONE]}.sum: expected a number above 0, got 0"),
        ("weight", {"sum": 1, "ordered": True}, f"{AT[ONE]}.ordered: needs an order of values"),
        ("weight", {**RANGE, "ordered": True}, f"{AT[ONE]}.ordered: needs an order of values"),
        ("weight", {**RANGE, "per": "tensor", "ordered": True}, f"{AT[ONE]}.ordered: needs an"),
        ("weight", {**RANGE, "per": 2, "ordered": True, "log": True}, f"{AT[ONE]}.log: an ordered"),
        ("weight", {**RANGE, "tied": ""}, f"{AT[ONE]}.tied: expected a name, got ''"),
        ("weight", {**RANGE, "tied": 3}, f"{AT[ONE]}.tied: expected a name, got 3"),
        ("weight", {"per": 2, "serach": True}, f"{AT[ONE]}.serach: unknown key"),
        ("weight", {"shape": "arch"}, f"{AT[ONE]}.shape: expected one of line, kernel, got 'arch'"),
    ],
)
def test_each_wrong_key_is_named_by_its_path(name: str, value: Any, rule: str) -> None:
    found = rules_of(with_((("models", 1, "parameters", name), value)))
    assert any(rule in x for x in found), found


def test_methods_that_declare_other_ranges_need_low_and_high() -> None:
    text = TIES.replace("ties", "{choices: [ties, linear]}")
    rule = (
        f"{AT[ONE]}: the methods declare other ranges for 'weight' "
        "(ties: 0 to 1.5, linear: 0 to 1); give low and high"
    )
    assert rules_of(with_((ONE, "search"), text=text)) == [rule]


WRONG: list[tuple[Any, Any, str]] = [  # place, value, what the problem says
    (ONE, {"low": 2, "high": 1}, "low must be below high"),
    (TWO, {"per": [[0, 1], [3, 4]]}, "per[1]: begins at layer 3"),
    (("models", 1, "parameters", "density"), {"cosine": 0}, "cosine: expected a whole number"),
    (("models", 2, "parameters", "density"), {**RANGE, "tied": "d"}, "nothing else is tied"),
    (("models", 0, "take_part"), BOTH, "the base always takes part"),
    (("seed",), {"choices": [0, 1]}, "draws no masks"),
    (("parameters",), {"normalize": {"low": 0, "high": 1}}, "expected true or false"),
    (("dtype",), {"choices": ["float16", "float32"]}, "go in parameters, merge_method"),
    (("merge_metod",), "ties", "unknown key, did you mean 'merge_method'?"),
]


@pytest.mark.parametrize("some", [*itertools.combinations(range(len(WRONG)), 2)], ids=str)
def test_of_several_wrong_knobs_each_is_a_problem(some: tuple[int, ...]) -> None:
    chosen = [WRONG[i] for i in some]
    found = "\n".join(rules_of(with_(*((place, value) for place, value, _ in chosen))))
    for _, _, rule in chosen:
        assert rule in found


def test_all_that_is_wrong_comes_at_once() -> None:
    found = "\n".join(rules_of(with_(*((place, value) for place, value, _ in WRONG))))
    assert all(rule in found for _, _, rule in WRONG)


NASTY = [None, True, -1, 0.5, "", "search", "x", [], [1], [{}], {}, {"low": 1}, {"choices": []}]
PLACES = [
    *(("merge_method",), ("base_model",), ("models",), ("models", 1), ("seed",), ("parameters",)),
    *(("models", 1, "take_part"), ("models", 1, "model"), ("models", 1, "parameters")),
    *(ONE, (*ONE, "per"), (*ONE, "sum"), (*ONE, "tied"), (*ONE, "ordered"), (*ONE, "choices")),
]


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("value", NASTY, ids=repr)
def test_whatever_stands_anywhere_is_read_or_refused_in_words(place: Any, value: Any) -> None:
    start = with_((ONE, {**RANGE, "per": 2}), (("models", 2, "take_part"), BOTH))
    *before, last = place
    owner = start
    for key in before:
        owner = owner[key]
    owner[last] = value
    problems: list[tuple[str, str]] = []
    found = recipe_template.parse(start, "recipe", problems)
    assert (found is None) == bool(problems)
    assert all(path.startswith("recipe") and rule for path, rule in problems)

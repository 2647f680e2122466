"""A recipe with knobs: where they may stand, and that both their ends make a valid recipe."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import yaml

from merge_core.methods.registry import METHODS, method
from merge_core.recipe import read as recipe_reader
from search.spec import recipe_template
from search.spec.recipe_template import Template
from tests.merge_core.recipes_in_the_wild import WILD

TIES = """
merge_method: ties
base_model: base
models:
  - model: base
  - {model: one, parameters: {weight: {low: 0.0, high: 1.5}, density: {low: 0.1, high: 1.0}}}
  - {model: two, parameters: {weight: 0.3, density: 0.5}}
parameters: {normalize: {choices: [true, false]}}
dtype: float16
"""
CHOICE = TIES.replace("ties", "{choices: [ties, linear, task_arithmetic]}")
RANGE = {"low": 0.1, "high": 1.0}


def data_of(text: str, *change: Any) -> Any:
    """Return plain data; ``change`` is a place, then the value to put there."""
    data = yaml.safe_load(text)
    if change:
        *place, last, value = change
        owner = data
        for key in place:
            owner = owner[key]
        owner[last] = value
    return data


def parsed(text: str, *change: Any) -> Template:
    problems: list[tuple[str, str]] = []
    found = recipe_template.parse(data_of(text, *change), "recipe", problems)
    assert found is not None, problems
    return found


def problems_of(data: Any) -> list[tuple[str, str]]:
    problems: list[tuple[str, str]] = []
    assert recipe_template.parse(data, "recipe", problems) is None
    return list(dict.fromkeys(problems))


def filled(text: str, name: str) -> dict[str, Any]:
    """Return the recipe of one method, every knob at its low end."""
    found = parsed(text)
    values = {k.place: k.choices[0] if k.choices else k.low for k in found.knobs}
    return found.filled({**values, ("merge_method",): name})


def test_knobs_stand_in_the_order_of_the_file() -> None:
    assert [knob.place for knob in parsed(TIES).knobs] == [
        ("models", 1, "parameters", "weight"),
        ("models", 1, "parameters", "density"),
        ("parameters", "normalize"),
    ]


def test_a_recipe_without_knobs_is_a_template_without_knobs() -> None:
    data = data_of(TIES, "models", 1, "parameters", {"weight": 1, "density": 1})
    data["parameters"] = {"normalize": True}
    found = recipe_template.parse(data, "recipe", [])
    assert found is not None
    assert found.knobs == ()


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (("dtype", {"choices": ["float16", "float32"]}), "recipe.dtype"),
        (("models", 1, "model", {"choices": ["one", "uno"]}), "recipe.models[1].model"),
        (("models", 1, RANGE), "recipe.models[1]"),
        (("models", 1, "parameters", RANGE), "recipe.models[1].parameters"),
        (("parameters", RANGE), "recipe.parameters"),
        (("models", RANGE), "recipe.models"),
        (
            (
                *("models", 1, "parameters", "weight"),
                [{"filter": {"choices": ["mlp", "attn"]}, "value": 1}],
            ),
            "recipe.models[1].parameters.weight[0].filter",
        ),
    ],
)
def test_a_knob_in_a_forbidden_place_is_named_by_its_path(change: Any, path: str) -> None:
    rule = (
        "ranges and choices go in parameters, merge_method, seed, a model's take_part and a "
        "slice's layer_range only"
    )
    assert problems_of(data_of(TIES, *change)) == [(path, rule)]


def test_a_range_of_methods_is_a_problem() -> None:
    assert problems_of(data_of(TIES, "merge_method", RANGE)) == [
        ("recipe.merge_method", "expected a method or choices, got a range")
    ]


@pytest.mark.parametrize("spread", [{"per": "layer"}, {"per": 2}, {"gradient": 3}, {"cosine": 3}])
@pytest.mark.parametrize("nested", [False, True])
def test_a_spread_knob_cannot_stand_inside_a_list(spread: dict[str, Any], nested: bool) -> None:
    values = [{**RANGE, **spread}, 0.5]
    setting = [{"filter": "mlp", "value": values}, {"value": 1}] if nested else values
    path = "recipe.models[1].parameters.weight" + ("[0].value[0]" if nested else "[0]")
    assert problems_of(data_of(TIES, "models", 1, "parameters", "weight", setting)) == [
        (path, f"{next(iter(spread))} cannot stand inside a list")
    ]


def test_a_plain_range_may_stand_inside_a_list() -> None:
    found = parsed(TIES, "models", 1, "parameters", "weight", [RANGE, 0.5, RANGE])
    assert [knob.place[4:] for knob in found.knobs[:2]] == [(0,), (2,)]


@pytest.mark.parametrize(("end", "value"), [("high", 1.5), ("low", -0.5)])
def test_either_end_outside_the_methods_hard_limits_is_found(end: str, value: float) -> None:
    data = data_of(TIES, "models", 1, "parameters", "density", end, value)
    assert problems_of(data) == [
        ("recipe.models[1].parameters.density", f"must be in [0, 1], got {float(value)}")
    ]


def test_a_choice_in_the_middle_is_checked_too() -> None:
    data = data_of(TIES, "models", 1, "parameters", "density", {"choices": [0.5, 7, 1.0]})
    assert problems_of(data) == [
        ("recipe.models[1].parameters.density", "must be in [0, 1], got 7")
    ]


@pytest.mark.parametrize(("low", "high", "got"), [(0, 2, "2.0"), (0.1, 1, "0.1"), (0, 1, "0.5")])
def test_a_range_for_a_flag_is_a_problem(low: float, high: float, got: str) -> None:
    data = data_of(TIES, "parameters", "normalize", {"low": low, "high": high})
    assert [rule for _, rule in problems_of(data)] == [f"expected true or false, got {got}"]


def test_a_knob_of_a_parameter_that_the_method_lacks_is_a_problem() -> None:
    ((path, rule),) = problems_of(data_of(TIES, "parameters", "t", {"choices": [1, 2]}))
    assert path == "recipe.parameters.t"
    assert rule.startswith("changes nothing: 'ties' does not read it; it has weight, ")
    assert rule.endswith("; there is nothing to search")


@pytest.mark.parametrize(
    "range_", [RANGE, {"choices": [0.1, 0.2]}, [{"filter": "x", "value": RANGE}]]
)
def test_a_range_at_the_base_is_a_problem(range_: Any) -> None:
    data = data_of(TIES, "models", 0, "parameters", {"weight": range_})
    ((path, rule),) = problems_of(data)
    assert path.startswith("recipe.models[0].parameters.weight")
    assert (
        rule
        == "changes nothing: the base takes no parameters in 'ties'; there is nothing to search"
    )


def test_what_a_study_says_in_vain_without_a_range_is_a_notice() -> None:
    found = parsed(TIES, "parameters", {"normalize": True, "t": 0.5, "embed_slerp": True})
    assert [path for path, _ in found.notices] == [
        "parameters.embed_slerp",
        "parameters.t",
    ]
    assert parsed(TIES).notices == ()


@pytest.mark.parametrize("name", WILD)
def test_recipes_of_strangers_are_read_as_by_merge(name: str) -> None:
    text, idle = WILD[name]
    found = parsed(text)
    assert sorted(path for path, _ in found.notices) == sorted(idle)
    recipe = recipe_reader.parse(data_of(text), "", [])
    assert recipe is not None
    assert recipe_reader.parse(found.filled({}), "", []) == recipe


def test_a_bad_knob_does_not_hide_what_else_is_wrong() -> None:
    data = data_of(TIES, "models", 1, "parameters", "weight", {"low": 2, "high": 1})
    data |= {"bse_model": "x", "dtype": "float8"}
    assert problems_of(data) == [
        ("recipe.models[1].parameters.weight", "low must be below high, got low 2 and high 1"),
        ("recipe.bse_model", "unknown key, did you mean 'base_model'?"),
        ("recipe.dtype", "expected float32 or bfloat16 or float16, got 'float8'"),
    ]


def test_a_missing_method_is_required_also_beside_a_bad_knob() -> None:
    data = data_of(TIES, "models", 1, "parameters", "weight", {"low": 2, "high": 1})
    del data["merge_method"]
    assert ("recipe.merge_method", "required") in problems_of(data)


@pytest.mark.parametrize("data", [None, [], "ties", 3])
def test_a_recipe_that_is_no_mapping_is_one_problem(data: Any) -> None:
    ((path, rule),) = problems_of(data)
    assert path == "recipe"
    assert rule.startswith("expected a recipe (a mapping), got ")


@pytest.mark.parametrize(
    ("choices", "rule"),
    [
        (["ties", "tiess"], "no merge method 'tiess', did you mean 'ties'?"),
        (["ties", 3], "no merge method 3"),
    ],
)
def test_an_unknown_method_among_the_choices_is_a_problem(choices: list[Any], rule: str) -> None:
    data = data_of(TIES, "merge_method", {"choices": choices})
    assert problems_of(data) == [("recipe.merge_method", rule)]


def test_every_method_of_the_choices_must_fit_the_models() -> None:
    data = data_of(CHOICE, "merge_method", {"choices": ["ties", "slerp"]})
    rule = "'slerp' takes 2 models, the base included, got 3"
    assert ("recipe.models", rule) in problems_of(data)


def test_a_typing_error_in_a_parameter_is_found_also_where_methods_are_chosen() -> None:
    data = data_of(CHOICE, "models", 2, "parameters", "densty", 0.5)
    assert {path for path, _ in problems_of(data)} == {"recipe.models[2].parameters.densty"}


@pytest.mark.parametrize("name", ["ties", "linear", "task_arithmetic"])
def test_each_method_of_the_choices_gives_a_valid_recipe(name: str) -> None:
    problems: list[tuple[str, str]] = []
    recipe = recipe_reader.parse(filled(CHOICE, name), "", problems)
    assert recipe is not None, problems
    assert recipe.merge_method == name


def test_parameters_that_the_chosen_method_lacks_are_left_out() -> None:
    data = filled(CHOICE, "task_arithmetic")
    assert [list(source.get("parameters", {})) for source in data["models"]] == [
        [],
        ["weight"],
        ["weight"],
    ]


def test_the_chosen_method_keeps_all_its_parameters() -> None:
    data = filled(CHOICE, "ties")
    assert data == {**filled(TIES, "ties")}
    assert data["models"][2]["parameters"] == {"weight": 0.3, "density": 0.5}


def test_the_base_is_dropped_for_a_method_that_has_none() -> None:
    data = filled(CHOICE, "linear")
    assert "base_model" not in data
    assert [source["model"] for source in data["models"]] == ["one", "two"]


def test_a_listed_base_with_a_weight_of_its_own_is_a_model_like_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mean = replace(method("linear"), name="mean")  # both have no use for a base
    monkeypatch.setitem(METHODS._added, "mean", mean)
    models = [{"model": name, "parameters": {"weight": 1}} for name in ("one", "base")]
    names = {"choices": ["linear", "mean"]}
    found = recipe_template.parse(
        {"merge_method": names, "base_model": "base", "models": models}, "r", []
    )
    assert found is not None
    data = found.filled({("merge_method",): "mean"})
    assert data == {"merge_method": "mean", "models": models}


def test_problems_are_named_by_the_files_own_positions_where_the_base_is_dropped() -> None:
    data = data_of(CHOICE, "models", 2, "parameters", {"density": 0.5})
    assert {path for path, _ in problems_of(data)} == {"recipe.models[2].parameters.weight"}


def test_a_nameless_model_is_named_by_its_position_where_there_is_no_base() -> None:
    models = [{}, {"model": "one", "parameters": {"weight": {"choices": [1, 2]}}}, {"model": "two"}]
    assert {path for path, _ in problems_of({"merge_method": "linear", "models": models})} == {
        "recipe.models[0].model",
        "recipe.models[0].parameters.weight",
        "recipe.models[2].parameters.weight",
    }


@pytest.mark.parametrize("models", [None, "base", ["base"], [{"parameters": {}}]])
def test_models_that_cannot_be_read_are_problems_also_where_methods_are_chosen(models: Any) -> None:
    paths = [path for path, _ in problems_of(data_of(CHOICE, "models", models))]
    assert paths
    assert all(path.startswith("recipe.models") for path in paths)


def test_filling_leaves_the_template_as_it_was() -> None:
    found = parsed(CHOICE)
    before = copy.deepcopy(found.data)
    found.filled({knob.place: knob.choices[0] if knob.choices else 1 for knob in found.knobs})
    assert found.data == before


def test_references_are_the_models_in_order_then_a_base_that_is_not_listed() -> None:
    assert parsed(TIES).references() == ("base", "one", "two")
    assert parsed(TIES.replace("  - model: base\n", "")).references() == ("one", "two", "base")


def test_config_comes_from_the_base_or_else_from_the_first_model() -> None:
    models = "[{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]"
    assert parsed(TIES).base_or_first() == "base"
    assert parsed(f"{{merge_method: linear, models: {models}}}").base_or_first() == "a"


def test_candidates_have_the_type_that_is_written_with_or_without_torchs_prefix() -> None:
    assert parsed(TIES, "dtype", "torch.float32").written == "float32"
    assert parsed(TIES, "out_dtype", "torch.bfloat16").written == "bfloat16"
    assert parsed(TIES, "dtype", None).written is None


def test_methods_are_the_one_named_or_all_choices_in_order() -> None:
    assert [m.name for m in parsed(TIES).methods()] == ["ties"]
    assert [m.name for m in parsed(CHOICE).methods()] == ["ties", "linear", "task_arithmetic"]


@pytest.mark.parametrize(
    ("key", "start", "end"),
    [
        ("documents", "a study has one document", "merge the others to a folder and name that"),
        ("tokenizer", "candidates have the tokenizer of the base", "to a folder first"),
        ("tokenizer_source", "candidates have the tokenizer of the base", "to a folder first"),
    ],
)
def test_forms_that_are_not_searched_are_refused_by_their_key(key, start, end):
    ((where, rule),) = problems_of({**data_of(TIES), key: "x"})
    assert where == f"recipe.{key}"
    assert rule.startswith(start)
    assert rule.endswith(end)


def test_reference_in_its_mapping_form_is_the_same_as_in_its_short_form():
    mapping = {"model": {"path": "one", "revision": "v1"}, "lora": {"path": "a"}}
    found = parsed(TIES, "models", 1, "model", mapping)
    assert found.references() == ("base", "one@v1+a", "two")
    assert parsed(TIES, "base_model", {"path": "base"}).base_or_first() == "base"

"""What a search has to beat, in a fixed order, and which of it the sampler may learn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from merge_core.errors import MergeError
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe
from search.space.space import Space
from search.space.starting_points import Baseline, baselines
from tests.search import toy


def found(text: str = toy.STUDY, folder: Path = Path("/nowhere")) -> list[Baseline]:
    spec = toy.spec_of(text, folder)
    return baselines(spec, Space(spec.template, toy.TENSORS))


def recipe_of(name: str, text: str = toy.STUDY) -> Recipe:
    return next(b.recipe for b in found(text) if b.name == name)


LINEAR = toy.STUDY.replace("task_arithmetic", "linear").replace(
    "  models:\n", "  models:\n    - {model: org/base, parameters: {weight: 1.0}}\n"
)


def test_they_stand_in_a_fixed_order() -> None:
    assert tuple(b.name for b in found()) == toy.BASELINES


def test_parents_and_the_base_are_themselves_and_the_uniform_merge_is_the_experts_mean() -> None:
    bench = toy.Toy(toy.spec_of(toy.STUDY, Path("/nowhere")))
    points = {b.name: set(bench.model(b.recipe).points) for b in found()[:4]}
    assert points == {
        "base": {(0.0, 0.0)},
        "parent:org/one": {(1.0, 0.0)},
        "parent:org/two": {(0.0, 1.0)},
        "uniform": {(0.5, 0.5)},
    }


def test_plain_ones_lie_outside_the_space_and_simple_ones_inside() -> None:
    spec = toy.spec_of(toy.STUDY, Path("/nowhere"))
    space = Space(spec.template, toy.TENSORS)
    for baseline in found():
        simple = baseline.name == "defaults" or baseline.name.startswith("simple:")
        assert set(baseline.params) == ({d.name for d in space.dimensions} if simple else set())
        assert not simple or space.recipe(baseline.params) == baseline.recipe


def test_a_base_that_the_method_has_no_use_for_is_a_parent_like_the_others() -> None:
    assert [b.name for b in found(LINEAR)[:4]] == [
        "parent:org/base",
        "parent:org/one",
        "parent:org/two",
        "uniform",
    ]
    assert recipe_of("uniform", LINEAR).references() == ("org/base", "org/one", "org/two")


def test_a_base_that_one_of_the_methods_needs_is_the_base() -> None:
    text = toy.STUDY.replace("task_arithmetic", "{choices: [linear, task_arithmetic]}")
    assert tuple(b.name for b in found(text))[:4] == toy.BASELINES[:4]


def test_all_of_them_have_the_studys_dtype_in_the_recipes_own_words() -> None:
    text = toy.STUDY.replace("  models:\n", "  dtype: torch.bfloat16\n  models:\n")
    assert {b.recipe.dtype for b in found(text)} == {"bfloat16"}


def test_all_of_them_are_valid_recipes_that_come_back_from_plain_data() -> None:
    for baseline in found() + found(LINEAR):
        assert recipe_reader.parse(baseline.recipe.plain(), "", []) == baseline.recipe


def test_the_users_own_come_last_and_steer_where_they_lie_in_the_space(tmp_path: Path) -> None:
    one = "{model: org/one, parameters: {weight: 0.3}}"
    two = "{model: org/two, parameters: {weight: 1}}"
    (tmp_path / "out.yaml").write_text(f"{{merge_method: linear, models: [{one}, {two}]}}")
    inside = f"{{merge_method: task_arithmetic, base_model: org/base, models: [{one}, {two}]}}"
    (tmp_path / "in.yaml").write_text(inside)
    mine = found(toy.STUDY + "baselines: {a: out.yaml, b: in.yaml}", tmp_path)[-2:]
    assert [(b.name, b.params) for b in mine] == [
        ("a", {}),
        (
            "b",
            {"weight/one/layers 0-1": 0.3, "weight/one/layers 2-3": 0.3, "weight/two": 1.0},
        ),
    ]
    assert [dict(s.parameters) for s in mine[1].recipe.models] == [{"weight": 0.3}, {"weight": 1}]


def started(tmp_path: Path, recipe: str) -> Baseline:
    (tmp_path / "mine.yaml").write_text(recipe)
    text = toy.STUDY.replace("search: {", "search: {start: mine.yaml, ")
    return next(b for b in found(text, tmp_path) if b.name == "start:mine.yaml")


def test_a_recipe_to_start_from_is_a_trial_inside_the_space(tmp_path: Path) -> None:
    last = "{filter: model.norm, value: 0.9}, {filter: lm_head, value: 0.9}"
    recipe = f"""
merge_method: task_arithmetic
base_model: org/base
models:
  - model: org/one
    parameters: {{weight: [{last}, {{value: [0.1, 0.1, 0.9, 0.9]}}]}}
  - {{model: org/two, parameters: {{weight: 0.25}}}}
"""
    point = {"weight/one/layers 0-1": 0.1, "weight/one/layers 2-3": 0.9, "weight/two": 0.25}
    assert started(tmp_path, recipe).params == pytest.approx(point)


def test_a_recipe_that_the_space_cannot_say_is_no_start(tmp_path: Path) -> None:
    recipe = """
merge_method: task_arithmetic
base_model: org/base
models:
  - {model: org/one, parameters: {weight: [0.1, 0.9]}}
  - {model: org/two, parameters: {weight: 1.75}}
"""
    with pytest.raises(MergeError) as caught:
        started(tmp_path, recipe)
    said = str(caught.value)
    assert said.startswith("search.start: the recipe is no point of this space: ")
    assert "recipe.models[0].parameters.weight: this recipe has 0.1 for lm_head" in said
    assert "recipe.models[1].parameters.weight: this recipe has 1.75 for" in said
    assert "the nearest that the study can say is 1.5 (15 such tensors)" in said


def test_defaults_are_where_the_study_file_starts_its_knobs() -> None:
    text = toy.STUDY.replace("high: 1.5}", "high: 1.5, start: 0.4}").replace(
        "per: 2", "start: 0.7, shape: kernel"
    )
    spec = toy.spec_of(text, Path("/nowhere"))
    space = Space(spec.template, toy.TENSORS)
    (point,) = (b.params for b in baselines(spec, space) if b.name == "defaults")
    assert point == {
        "weight/one/peak": 0.7,
        "weight/one/peak layer": 1.5,
        "weight/one/reach": 2.5,
        "weight/one/floor": 0.7,
        "weight/two": 0.4,
    }


def test_of_a_method_without_parameters_there_are_no_simple_merges() -> None:
    text = """
recipe:
  merge_method: arcee_fusion
  base_model: org/base
  models: [{model: org/base}, {model: org/one}]
score: [{evaluator: lm_eval, task: sums}]
"""
    assert [b.name for b in found(text)] == ["base", "parent:org/one", "uniform", "defaults"]

"""What a search has to beat, in a fixed order, and which of it the sampler may learn from."""

from __future__ import annotations

from pathlib import Path

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


def test_the_users_own_come_last_and_steer_nothing(tmp_path: Path) -> None:
    models = (
        "[{model: org/one, parameters: {weight: 3}}, {model: org/two, parameters: {weight: 1}}]"
    )
    (tmp_path / "mine.yaml").write_text(f"{{merge_method: linear, models: {models}}}")
    mine = found(toy.STUDY + "baselines: {mine: mine.yaml}", tmp_path)[-1]
    assert (mine.name, mine.params) == ("mine", {})
    assert [dict(s.parameters) for s in mine.recipe.models] == [{"weight": 3}, {"weight": 1}]

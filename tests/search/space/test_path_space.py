"""A study's layer paths: its dimensions, what they make of a recipe, and what does not fit."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from merge_core.errors import MergeError, Problems
from merge_core.parents.weight_files import TensorInfo
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe
from search.samplers.ask import ask
from search.samplers.registry import find
from search.space.inverse import point_of
from search.space.path_space import PathSpace, layers_of
from search.space.starting_points import defaults
from search.spec import recipe_template
from tests.search.space.test_space import llama, template_of

PATH: dict[str, Any] = {"parents": ["org/a", "org/b"], "max_layers": 5}


def infos(count: int, width: int = 4) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(
            "model.safetensors", (width,) if "norm" in name else (width, width), "BF16"
        )
        for name in llama(count)
    }


def space_of(
    path: dict[str, Any] | None = None, depths: tuple[int, int] = (4, 3), **recipe: Any
) -> PathSpace:
    data = {"slices": {"path": {**PATH, **(path or {})}}, "dtype": "float32", **recipe}
    found = {name: infos(n) for name, n in zip(PATH["parents"], depths, strict=True)}
    return PathSpace(template_of(data), llama(depths[0]), infos=found)


def recipe_of(*slices: tuple[str, int, int], **more: Any) -> Recipe:
    given = [{"sources": [{"model": m, "layer_range": [a, b]}]} for m, a, b in slices]
    problems: Problems = []
    data = {"merge_method": "passthrough", "slices": given, "dtype": "float32", **more}
    found = recipe_reader.parse(data, "", problems)
    assert found is not None, problems
    return found


def ranges(recipe: Recipe) -> list[tuple[str, int, int]]:
    sources = [source for one in recipe.slices for source in one.sources]
    return [(s.model, *s.layer_range) for s in sources if s.layer_range]


def test_a_point_is_the_recipe_that_stacks_its_layers() -> None:
    space = space_of()
    point = {**defaults(space), "path/hop 1": "b:2", "path/hop 2": "b:0", "path/hop 3": "none"}
    recipe = space.recipe(point)
    assert recipe.merge_method == "passthrough"
    wanted = [("org/a", 0, 1), ("org/b", 2, 3), ("org/b", 0, 1), ("org/a", 3, 4)]
    assert ranges(recipe) == wanted
    assert recipe == recipe_of(*wanted)


def test_defaults_are_the_entry_model_and_other_parents_stand_between_its_ends() -> None:
    space = space_of()
    start = defaults(space)
    assert ranges(space.recipe(start)) == [("org/a", 0, 4)]
    (name, through), *others = space.through(start).items()
    assert name == "b"
    assert not others
    assert ranges(space.recipe(through)) == [("org/a", 0, 1), ("org/b", 1, 2), ("org/a", 3, 4)]


@pytest.mark.parametrize("encoding", ["hops", "signs", "flags"])
@pytest.mark.parametrize("sampler", ["auto", "tpe"])
def test_samplers_draw_paths_of_every_encoding(encoding: str, sampler: str) -> None:
    space = space_of({"encoding": encoding})
    study, drawn = optuna.create_study(), space.distributions()
    for number in range(12):
        trial = ask(study, drawn, find(sampler), None, 0, number, space)
        layers = ranges(space.recipe(trial.params))
        assert layers[0][:2] == ("org/a", 0)
        assert layers[-1][::2] == ("org/a", 4)
        study.tell(trial, float(len(layers)))


def test_a_path_is_read_back_to_its_point() -> None:
    space = space_of({"repeats": 2})
    path = (("org/a", 0, 2), ("org/b", 1, 2), ("org/b", 1, 2), ("org/a", 3, 4))
    point = point_of(space, recipe_of(*path))
    assert space.recipe(point) == recipe_of(*path)
    apart = (("org/a", 0, 1), ("org/a", 1, 2), *path[1:])  # the same layers, said otherwise
    assert point_of(space, recipe_of(*apart)) == point


@pytest.mark.parametrize(
    ("slices", "rule"),
    [
        ((("org/a", 1, 4),), "recipe.slices: every path begins with the first 1 layers of the ent"),
        ((("org/a", 0, 1), ("org/b", 0, 1)), "recipe.slices: every path ends with the last 1 lay"),
        ((("org/a", 0, 3), ("org/a", 0, 4)), "recipe.slices: the nearest path that the study can"),
    ],
)
def test_a_path_that_the_study_cannot_say_is_no_start(slices: Any, rule: str) -> None:
    with pytest.raises(MergeError, match=f"^{rule}"):
        point_of(space_of(), recipe_of(*slices))
    whole = recipe_of(("org/a", 0, 4), dtype="float16")
    with pytest.raises(MergeError, match="the study has 'float32', this recipe"):
        point_of(space_of(), whole)


def test_points_of_one_path_are_mended_to_one() -> None:
    space = space_of()
    gap = {"path/hop 1": "none", "path/hop 2": "b:1", "path/hop 3": "b:1"}
    one = {"path/hop 1": "b:1", "path/hop 2": "none", "path/hop 3": "none"}
    assert space.mended({**defaults(space), **gap}) == space.mended({**defaults(space), **one})
    assert space.mended({**defaults(space), **one}) == {**defaults(space), **one}


def test_factors_are_drawn_for_hops_that_are_there() -> None:
    space = space_of({"input_scale": {"low": 0.5, "high": 1.5, "step": 0.25}})
    assert space.deciding == ("path/hop 1", "path/hop 2", "path/hop 3")
    point = {**defaults(space), "path/hop 2": "none"}
    hops = {*space.deciding, "path/scale 1", "path/scale exit"}
    assert space.active(point) == hops
    study = optuna.create_study()
    trial = ask(study, space.distributions(), find("moves"), point, 0, 0, space)
    assert trial.params.keys() == space.active(trial.params)


def test_beside_a_path_knobs_stand_as_ever() -> None:
    scale = [{"filter": "up_proj", "value": {"low": 0.5, "high": 1.5}}, {"value": 1.0}]
    space = space_of(parameters={"scale": scale})
    names = [d.name for d in space.dimensions]
    assert names == ["scale/up_proj", "path/hop 1", "path/hop 2", "path/hop 3"]
    point = {**defaults(space), "scale/up_proj": 0.75, "path/hop 3": "b:0"}
    recipe = space.recipe(point)
    assert (
        dict(recipe.parameters)["scale"]
        == (
            recipe_of(
                ("org/a", 0, 1), parameters={"scale": [{**scale[0], "value": 0.75}, scale[1]]}
            )
        ).parameters[0][1]
    )
    assert point_of(space, recipe) == point


def test_bytes_of_layers_are_those_of_a_candidate() -> None:
    numbers = 4 + 2 * 16  # a norm, and two matrices
    assert layers_of(infos(3), None).sizes == (2 * numbers,) * 3
    assert layers_of(infos(3), "float32").sizes == (4 * numbers,) * 3
    assert layers_of(infos(3), "float16").sizes == (2 * numbers,) * 3


def test_what_does_not_fit_the_parents_is_told_by_key() -> None:
    template = template_of({"slices": {"path": {"parents": ["org/a", "org/b"], "keep_first": 6}}})
    found = {"org/a": infos(4), "org/b": infos(3)}
    problems: Problems = []
    PathSpace(template, llama(4), problems, infos=found)
    ((where, rule),) = problems
    assert where == "recipe.slices.path.keep_first"
    assert rule == "with keep_last they are 7, and the entry model org/a has 4 layers"


def test_parents_of_other_widths_are_refused_in_one_line() -> None:
    template = template_of({"slices": {"path": PATH}})
    found = {"org/a": infos(4), "org/b": infos(3, width=8)}
    with pytest.raises(MergeError) as told:
        PathSpace(template, llama(4), infos=found)
    assert str(told.value) == (
        "recipe.slices.path.parents[1]: its layers are of another form than those of org/a: "
        "input_layernorm.weight is [8] here and [4] there (3 such tensors of a layer); a path "
        "needs parents of one width"
    )


@pytest.mark.parametrize(
    ("change", "where", "rule"),
    [
        ({"merge_method": "linear"}, "recipe.merge_method", "the layers of a path are stacked as"),
        ({"models": [{"model": "x"}]}, "recipe.models", "a path names its models under `parents`"),
        ({"base_model": "x"}, "recipe.base_model", "config and tokenizer are those of the first"),
        ({"modules": {"x": {}}}, "recipe.modules", "a path is one stack of layers; omit it"),
        ({"slices": {"paths": {}}}, "recipe.slices.paths", "unknown key, did you mean 'path'?"),
        ({"slices": {}}, "recipe.slices.path", "required"),
        ({"slices": {"path": {"parents": 1}}}, "recipe.slices.path.parents", "expected a list of"),
        ({"dtype": "float"}, "recipe.dtype", "expected"),
    ],
)
def test_what_stands_beside_a_path_is_checked(change: Any, where: str, rule: str) -> None:
    problems: Problems = []
    data = {"slices": {"path": PATH}, "dtype": "float32", **change}
    assert recipe_template.parse(data, "recipe", problems) is None
    told = dict(problems)
    assert where in told
    assert told[where].startswith(rule)


def test_cma_es_draws_signs_and_no_hops() -> None:
    hops = template_of({"slices": {"path": PATH}})
    signs = template_of({"slices": {"path": {**PATH, "encoding": "signs"}}})
    assert hops.chooses
    assert not signs.chooses

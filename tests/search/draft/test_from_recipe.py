import re
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from merge_core.errors import DocumentError, MergeError
from merge_core.merge.nested import plan
from merge_core.methods.registry import METHODS, method
from merge_core.parents.open import open_parents
from merge_core.recipe.read import read as read_recipe
from search.draft.from_recipe import import_mergekit
from search.draft.knobs import is_searched
from search.draft.numbers import around
from search.draft.tasks import Asked
from search.run.check import check
from search.space.space import Space
from search.space.starting_points import baselines
from search.spec.study_file import read
from search.trial.builder import Builder
from tests.search.real import QUICKSTART, run_whole

TASKS = Asked(files=[Path("tasks/add.jsonl")])
PLAIN = """
merge_method: task_arithmetic
base_model: models/base
models:
  - {model: models/add, parameters: {weight: 0.4}}
  - {model: models/sort, parameters: {weight: 0.7}}
dtype: float32
"""
LAZY = """
slices:
  - sources:
      - {model: models/add, layer_range: [0, 4]}
      - {model: models/sort, layer_range: [0, 4]}
merge_method: slerp
base_model: models/add
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
dtype: bfloat16
"""
BANDS = """
merge_method: dare_ties
base_model: models/base
parameters: {int8_mask: true, lambda: 0.9}
slices:
  - sources:
      - {model: models/add, layer_range: [0, 2], parameters: {density: 0.8, weight: 0.4}}
      - {model: models/base, layer_range: [0, 2]}
  - sources:
      - {model: models/add, layer_range: [2, 4], parameters: {density: 1.0, weight: -0.2}}
      - {model: models/base, layer_range: [2, 4]}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "models").symlink_to(QUICKSTART / "models")
    (tmp_path / "tasks").symlink_to(QUICKSTART / "tasks")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def imported(folder, text, asked=TASKS, trials=100):
    file = folder / "recipe.yaml"
    file.write_text(text)
    found = import_mergekit(file, asked, trials, folder / "study", tasks=False)
    return yaml.safe_load(found.files[0].read_text())["recipe"], found


def test_numbers_become_ranges_and_the_recipe_a_baseline(folder):
    recipe, found = imported(folder, PLAIN)
    for name, start, source in zip(("add", "sort"), (0.4, 0.7), recipe["models"], strict=True):
        knob = {"low": 0.0, "high": 1.5, "per": "tensor", "start": start}
        assert source == {"model": f"../models/{name}", "parameters": {"weight": knob}}
    assert recipe["dtype"] == "float32"
    assert found.notes == {}
    original = read(found.files[0]).baselines["original"]
    weights = [dict(source.parameters)["weight"] for source in original.models]
    assert weights == [0.4, 0.7]
    assert "in the recipe: 0.4; one number for each tensor" in found.files[0].read_text()


def test_slices_over_all_layers_are_models_and_gradients_are_anchors(folder):
    recipe, found = imported(folder, LAZY)
    assert "slices" not in recipe
    assert recipe["models"] == [{"model": "../models/add"}, {"model": "../models/sort"}]
    anchors = {"low": 0.0, "high": 1.0, "gradient": 5}
    assert recipe["parameters"]["t"] == [
        {"filter": "self_attn", "value": anchors},
        {"filter": "mlp", "value": anchors},
        {"value": {"low": 0.0, "high": 1.0, "per": "tensor", "start": 0.5}},
    ]
    assert found.notes["slices"] == "all 4 layers in their places, so they are `models` here"
    assert check(found.files[0], strict=True).facts["dimensions"] == 20


def test_bands_of_layers_as_mergekit_evolve_writes_them_are_numbers_per_band(folder):
    recipe, found = imported(folder, BANDS)
    parameters = recipe["models"][0]["parameters"]
    assert parameters["density"] == {"low": 0.1, "high": 1.0, "per": 2}
    assert parameters["weight"] == {"low": -0.3, "high": 1.5, "per": 2}
    shared = {"low": 0.0, "high": 2.0, "start": 0.9}
    assert recipe["parameters"] == {"int8_mask": True, "lambda": shared}
    assert recipe["models"][1] == {"model": "../models/base"}
    assert check(found.files[0], strict=True).facts["dimensions"] == 5


def values_of(recipe):
    """Return tensor -> parameters of each model, and shared ones."""
    parents = open_parents(recipe.references(), (QUICKSTART,))
    steps = plan(recipe, parents).steps
    owners = {step.tensor: (*step.values, step.shared) for step in steps}
    return {name: [_rounded(values) for values in each] for name, each in owners.items()}


def _rounded(values):
    return {key: round(float(x), 9) for key, x in values.items() if not isinstance(x, bool | str)}


@pytest.mark.parametrize(
    "text", [PLAIN, LAZY, BANDS, BANDS.replace("2]", "1]").replace("[2", "[1")]
)
def test_the_search_starts_at_the_recipes_numbers_tensor_by_tensor(folder, text):
    _, found = imported(folder, text)
    spec = read(found.files[0])
    (main,) = open_parents([spec.template.base_or_first()], spec.roots).values()
    space = Space(spec.template, main.tensors)
    starts = {one.name: one.recipe for one in baselines(spec, space)}
    started = [name for name in starts if name.startswith("start:")]
    assert bool(started) == (text != PLAIN)
    recipe = starts[started[0]] if started else starts["defaults"]
    original = spec.baselines["original"]
    places = {name: str(found.files[0].parent / name) for name in recipe.references()}
    ours, wanted = (values_of(one.with_references(places)) for one in (recipe, original))
    assert ours == wanted


def test_models_of_the_hub_start_where_one_number_says_it(folder):
    recipe, found = imported(folder, LAZY.replace("models/", "owner/"))
    assert [case["value"].get("start") for case in recipe["parameters"]["t"]] == [None, None, 0.5]
    assert len(found.files) == 2


def test_bands_of_different_widths_are_named_one_by_one(folder):
    text = BANDS.replace("[0, 2]", "[0, 3]").replace("[2, 4]", "[3, 4]")
    assert imported(folder, text)[0]["models"][0]["parameters"]["weight"]["per"] == 3
    text = BANDS.replace("[0, 2]", "[0, 1]").replace("[2, 4]", "[1, 4]")
    shutil.rmtree(folder / "study")
    weight = imported(folder, text)[0]["models"][0]["parameters"]["weight"]
    assert weight["per"] == [[0, 0], [1, 3]]


def test_a_shared_number_stays_one_for_all_models(folder):
    text = "merge_method: linear\nparameters: {weight: 0.5, normalize: false}\nmodels:\n"
    recipe, _ = imported(folder, f"{text}  - model: models/add\n  - model: models/sort\n")
    knob = {"low": 0.0, "high": 1.0, "per": "tensor", "start": 0.5}
    assert recipe["parameters"]["weight"] == knob
    assert recipe["parameters"]["normalize"] is False


def test_other_numbers_than_the_main_one_are_one_for_all_layers(folder):
    text = PLAIN.replace("task_arithmetic", "ties").replace(
        "weight: 0.4", "weight: 1, density: 0.5"
    )
    recipe, _ = imported(folder, text)
    density = recipe["models"][0]["parameters"]["density"]
    assert density == {"low": 0.1, "high": 1.0, "start": 0.5}


def test_what_the_recipe_says_in_vain_is_told(folder):
    _, found = imported(folder, f"{PLAIN}embed_slerp: true\n")
    assert found.notes["embed_slerp"].startswith("not carried over: changes nothing")


@pytest.mark.parametrize("line", ["tokenizer_source: union", "tokenizer: {source: models/add}"])
def test_a_tokenizer_is_told_and_left_out_of_the_baseline(folder, line):
    recipe, found = imported(folder, f"{PLAIN}{line}\n")
    assert found.notes["tokenizer"].startswith("not carried over: candidates have the tokenizer")
    assert not {"tokenizer", "tokenizer_source"} & recipe.keys()
    assert read_recipe(found.files[1]).tokenizer is None


MOE = """
base_model: models/base
gate_mode: cheap_embed
experts:
  - {source_model: models/add, positive_prompts: ["add 12+34="]}
  - {source_model: models/sort, positive_prompts: ["sort tuaod="]}
dtype: float32
"""
SEVERAL = f"{PLAIN}name: x\n---\nmerge_method: linear\nparameters: {{weight: 1}}\nmodels:\n"
SEVERAL += "  - {model: x}\n"


def sliced(*ranges):
    entries = "".join(
        f"  - sources: [{{model: models/add, layer_range: [{a}, {b}]}}]\n" for a, b in ranges
    )
    return f"merge_method: passthrough\nslices:\n{entries}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SEVERAL, "documents: x: a study searches one recipe; merge each of these"),
        (PLAIN.replace("task_arithmetic", "model_stock").replace(
            "  - {model: models/sort", "  - {model: models/rev}\n  - {model: models/sort"
        ), "gives 'model_stock' no number that a study could search"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused_with_what_to_do(folder, text, problem):
    with pytest.raises(MergeError, match=problem):
        imported(folder, text)
    assert not (folder / "study").exists()


@pytest.mark.parametrize(
    ("ranges", "inside"), [([(0, 3), (1, 4)], True), ([(1, 4), (0, 2)], False)]
)
def test_layers_that_are_stacked_as_they_are_become_a_path_that_begins_with_them(
    folder, ranges, inside
):
    recipe, found = imported(folder, sliced(*ranges) + "dtype: float32\n")
    layers = [i for a, b in ranges for i in range(a, b)]
    path = {"parents": ["../models/add"], "repeats": 2, "max_layers": len(layers)}
    if not inside:
        path["repeats"] = 2 if len(set(layers)) < len(layers) else 1
    assert recipe["slices"] == {"path": path}
    assert ("does not start from it" in found.notes["slices"]) == (not inside)
    spec = read(found.files[0])
    space = Builder(spec).space
    original = next(one for one in baselines(spec, space) if one.name == "original")
    assert bool(original.params) == inside
    if inside:
        assert space.recipe(original.params).slices == original.recipe.slices
        assert check(found.files[0], strict=True).facts["dimensions"] == len(layers) - 2


def test_a_configuration_of_mergekit_moe_becomes_a_study_of_its_routers(folder):
    recipe, found = imported(folder, MOE)
    moe = recipe["moe"]
    assert moe["experts_per_token"] == {"choices": [1, 2], "start": 2}
    assert moe["temperature"] == {"low": 0.25, "high": 4.0, "log": True, "start": 1.0}
    assert [x["source_model"] for x in moe["experts"]] == ["../models/add", "../models/sort"]
    spec = read(found.files[0])
    space = Builder(spec).space
    assert len(space.dimensions) == 4
    first = {one.name: one for one in baselines(spec, space)}
    original = first["original"]
    assert original.params == first["defaults"].params  # inside the space, where it starts
    assert original.recipe.moe.gate_mode == "cheap_embed"
    assert check(found.files[0], strict=True).facts["dimensions"] == 4


MODULES = """
merge_method: linear
modules:
  default:
    models:
      - {model: models/add, parameters: {weight: 1}}
      - {model: models/sort, parameters: {weight: [0.5, 0.2]}}
dtype: float32
"""
SCALED = """
merge_method: passthrough
slices:
  - sources: [{model: models/add, layer_range: [0, 3]}]
  - sources:
      - model: models/sort
        layer_range: [1, 4]
        parameters: {scale: [{filter: o_proj, value: 0.4}, {filter: down, value: 0.6}, {value: 1}]}
dtype: float32
"""
OTHER = LAZY.replace("[0, 4]", "[0, 3]", 1).replace("[0, 4]", "[1, 4]")
GRADIENT = BANDS.replace("weight: 0.4", "weight: [0.4, 1]")
STACKED = {
    "scaled layers": (SCALED, "has the layers from 1 on where 3 is next"),
    "other layers": (OTHER, "has different layers"),
    "a part": (LAZY.replace("[0, 4]", "[0, 3]"), "have 3 of 4 layers"),
    "a gradient in a slice": (GRADIENT, "weight: a gradient"),
    "other filters": (
        BANDS.replace("density: 1.0, ", "density: [{filter: mlp, value: 1}, {value: 0.5}], "),
        "density: not all slices have it in the same way",
    ),
    "modules": (MODULES, None),
}


@pytest.mark.parametrize(("text", "why"), STACKED.values(), ids=STACKED)
def test_stacked_recipes_and_modules_stay_what_they_are_and_start_at_their_numbers(
    folder, text, why
):
    recipe, found = imported(folder, text)
    assert ("modules" if why is None else "slices") in recipe
    if why is not None:
        assert why in found.notes["slices"]
    spec = read(found.files[0])
    opened = open_parents(spec.template.references(), spec.roots)
    names = {name: one.architecture.in_order(one.tensors) for name, one in opened.items()}
    space = Space(spec.template, names[spec.template.base_or_first()], parents=names)
    assert space.dimensions
    started = next(one.recipe for one in baselines(spec, space) if one.name == "defaults")
    places = {name: str(found.files[0].parent / name) for name in started.references()}
    ours, wanted = (
        values_of(one.with_references(places)) for one in (started, spec.baselines["original"])
    )
    assert ours == wanted


def test_a_recipe_that_breaks_rules_is_refused_with_its_lines(folder):
    with pytest.raises(
        DocumentError, match=r"recipe\.yaml:5: models\[0\]\.parameters\.weight: expe"
    ):
        imported(folder, PLAIN.replace("0.4", "heavy"))


def test_a_study_without_a_task_is_refused(folder):
    with pytest.raises(MergeError, match=r"name some by --task .* or --file"):
        imported(folder, PLAIN, Asked())


def test_parents_of_different_architectures_are_refused(folder, family):
    other = family("gpt-neox") / "one"
    with pytest.raises(MergeError, match=r"gpt_neox|architecture"):
        imported(folder, PLAIN.replace("models/sort", str(other)))


def test_models_of_the_hub_are_taken_at_their_word(folder):
    recipe, found = imported(folder, LAZY.replace("models/", "owner/"))
    assert recipe["models"][0] == {"model": "owner/add"}
    assert found.notes["slices"].startswith("4 layers, taken for all of them in their places")


SEARCHED = sorted(
    name for name in METHODS.names() if any(is_searched(p) for p in method(name).params)
)


@pytest.mark.parametrize("name", SEARCHED)
def test_recipes_of_every_method_make_studies_that_check_accepts(folder, name):
    found = method(name)
    most = found.models[1] or 3
    models = ["models/add", "models/sort"][: max(most - (found.base != "none"), 1)]
    numbers = {p.name: p.start if p.start is not None else p.default for p in found.params}
    own = {
        p.name: numbers[p.name] for p in found.params if p.scope == "model" and p.low is not None
    }
    shared = {p.name: numbers[p.name] for p in found.params if p.scope == "shared"}
    data = {"merge_method": name, "parameters": shared}
    data["models"] = [{"model": model, "parameters": own} for model in models]
    if found.base == "required":
        data["base_model"] = "models/base"
    _, written = imported(folder, yaml.safe_dump(data))
    assert check(written.files[0], strict=True).facts["dimensions"] > 0


@given(
    st.sampled_from([p for name in SEARCHED for p in method(name).params if p.low is not None]),
    st.lists(st.floats(-100, 100) | st.floats(0, 1e-5), min_size=1, max_size=4),
)
def test_a_range_holds_its_numbers_and_keeps_within_what_the_method_takes(param, numbers):
    allowed = [x for x in numbers if param.rule_broken_by(x) is None] or [param.high]
    found = around(param, allowed)
    assert found["low"] <= min(allowed)
    assert max(allowed) <= found["high"]
    assert found["low"] <= param.low
    assert param.high <= found["high"]
    assert param.rule_broken_by(found["low"]) is param.rule_broken_by(found["high"]) is None
    assert not found.get("log") or found["low"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("text", [LAZY, BANDS])
def test_a_recipe_from_scratch_is_run_to_its_end(folder, text):
    file = folder / "recipe.yaml"
    file.write_text(text)
    study = import_mergekit(file, TASKS, 2, folder / "study", tasks=True).files[0]
    few = re.sub(r"items: .*", "items: {search: 8, select: 6, report: 10}", study.read_text())
    study.write_text(few)
    summary = run_whole(study)
    assert "original" in [row["name"] for row in summary["candidates"]]

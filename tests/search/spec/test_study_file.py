"""A study file is read strictly: all problems at once, each with file, line, path and rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluators.registry import EVALUATORS
from merge_core.errors import DocumentError, MergeError
from merge_core.recipe import yaml_document
from search.report import select as selection
from search.space import starting_points
from search.spec import study_file
from search.spec.study_file import StudySpec
from tests.search.toy import STUDY, spec_of

BAD = """
name: 3
recpe: {}
recipe:
  merge_method: ties
  base_model: base
  dtyp: float16
  models:
    - model: one
      parameters:
        weight: {low: 2, high: 1}
        density: {low: 0.1, high: 1.5}
score:
  - {evaluator: lm_evl, task: a}
  - {evaluator: lm_eval, weight: 0}
  - {evaluator: lm_eval, task: a, taks: b}
items:
  search: 1.5
  report: all
search: {sampler: grid, seed: true, trials: 0}
engine: {batch: 2}
storage: 7
baselines: [mine.yaml]
"""
KNOWN = ", ".join(EVALUATORS.names())
SAMPLERS = "auto, catcma, cma-es, gp, gradient, moves, nsga2, qmc, random, tpe"
PROBLEMS = """\
study.yaml:2: name: expected a text, got 3
study.yaml:3: recpe: unknown key, did you mean 'recipe'?
study.yaml:7: recipe.dtyp: unknown key, did you mean 'dtype'?
study.yaml:11: recipe.models[0].parameters.weight: low must be below high, got low 2 and high 1
study.yaml:12: recipe.models[0].parameters.density: must be in [0, 1], got 1.5
study.yaml:14: score[0].evaluator: expected one of KNOWN, got 'lm_evl', did you mean 'lm_eval'?
study.yaml:15: score[1].weight: expected a number above 0, got 0
study.yaml:15: score[1].task: required by evaluator 'lm_eval'
study.yaml:16: score[2].taks: unknown key, did you mean 'task'?
study.yaml:18: items.search: expected a whole number, got 1.5
study.yaml:19: items.report: expected a whole number of at least 1 or 'rest', got 'all'
study.yaml:20: search.sampler: expected one of SAMPLERS, got 'grid'
study.yaml:20: search.seed: expected a whole number, got true
study.yaml:20: search.trials: must be at least 1, got 0
study.yaml:21: engine.batch: unknown key, did you mean 'batch_size'?
study.yaml:22: storage: expected a text, got 7
study.yaml:23: baselines: expected names with recipe files, got ['mine.yaml']"""
RECIPE = """
merge_method: linear
models: [{model: org/one, parameters: {weight: 1}}, {model: org/two, parameters: {weight: 2}}]
"""


def data_of(**changes: Any) -> dict[str, Any]:
    """Return the toy study's data with whole sections replaced; None takes one out."""
    data = {**yaml_document.parse(STUDY, "study.yaml").data, **changes}
    return {key: value for key, value in data.items() if value is not None}


def spec_with(folder: Path = Path("/nowhere/zoo"), **changes: Any) -> StudySpec:
    return study_file.of_document(
        yaml_document.Document("study.yaml", data_of(**changes), {}), folder
    )


def problems_of(**changes: Any) -> list[tuple[str, str]]:
    with pytest.raises(DocumentError, match=r"study\.yaml:1: ") as caught:
        spec_with(**changes)
    return [(p.path, p.rule) for p in caught.value.problems]


def test_every_problem_of_a_bad_file_comes_at_once_with_its_line() -> None:
    with pytest.raises(DocumentError, match="recpe: unknown key") as caught:
        spec_of(BAD, Path("/nowhere"))
    assert str(caught.value) == PROBLEMS.replace("KNOWN", KNOWN).replace("SAMPLERS", SAMPLERS)


def test_an_empty_study_says_what_is_required() -> None:
    assert problems_of(recipe=None, score=None) == [
        ("recipe", "required: a mergekit recipe with ranges in it"),
        ("score", "required"),
    ]


def test_a_recipe_that_is_no_mapping_is_one_problem_at_its_key() -> None:
    assert problems_of(recipe=3) == [("recipe", "expected a recipe (a mapping), got 3")]


@pytest.mark.parametrize(("data", "shown"), [([1], "a list"), ("ties", "'ties'"), (None, "nothi")])
def test_a_study_that_is_no_mapping_is_one_problem(data: Any, shown: str) -> None:
    with pytest.raises(DocumentError, match=rf"^s:1: \(file\): expected a study.*, got {shown}"):
        study_file.of_document(yaml_document.Document("s", data, {}), Path("/nowhere"))


@pytest.mark.parametrize(
    ("section", "key", "value", "rule"),
    [
        ("search", "seed", True, "expected a whole number, got true"),
        ("search", "seed", 1.0, "expected a whole number, got 1.0"),
        ("search", "seed", -1, "must be at least 0, got -1"),
        ("search", "seed", 2**63, f"must be below {2**63}, got {2**63}"),
        ("search", "trials", "9", "expected a whole number, got '9'"),
        ("search", "hours", "9", "expected a number, got '9'"),
        ("search", "hours", 0, "must be above 0, got 0"),
        ("search", "finalists", 0, "must be at least 1, got 0"),
        ("search", "sampler", None, "expected a text, got nothing"),
        ("search", "trails", 9, "unknown key, did you mean 'trials'?"),
        ("items", "search", 0, "must be at least 1, got 0"),
        ("items", "select", [1], "expected a whole number, got [1]"),
        ("items", "report", True, "expected a whole number of at least 1 or 'rest', got true"),
        ("items", "report", 0, "expected a whole number of at least 1 or 'rest', got 0"),
        ("engine", "device", 0, "expected a text, got 0"),
        ("engine", "device", "foo:9", "expected auto, cpu, cuda, cuda:1, mps, ..., got 'foo:9'"),
        (
            "engine",
            "device",
            "cuda:x",
            "expected auto, cpu, cuda, cuda:1, mps, ..., got 'cuda:x', did you mean 'cuda'?",
        ),
        ("engine", "batch_size", 0, "must be at least 1, got 0"),
        ("engine", "name", "vlm", "expected one of hf, vllm, got 'vlm', did you mean 'vllm'?"),
        ("engine", "parents", "disk", "expected one of auto, device, pinned, mapped, got 'disk'"),
        ("engine", "kernels", "fast", "expected one of auto, fused, blocked, got 'fast'"),
    ],
)
def test_a_wrong_value_in_a_section_is_answered_in_the_files_own_words(
    section: str, key: str, value: Any, rule: str
) -> None:
    assert problems_of(**{section: {key: value}}) == [(f"{section}.{key}", rule)]


@pytest.mark.parametrize("section", ["items", "search", "engine"])
def test_a_section_that_is_no_mapping_is_one_problem(section: str) -> None:
    assert problems_of(**{section: 3}) == [(section, "expected a mapping, got 3")]


def test_a_wrong_key_does_not_hide_another_problem_of_its_section() -> None:
    assert problems_of(search={"sampler": "cmaes", "seed": "x"}) == [
        (
            "search.sampler",
            f"expected one of {SAMPLERS}, got 'cmaes', did you mean 'cma-es'?",
        ),
        ("search.seed", "expected a whole number, got 'x'"),
    ]


def test_cma_es_is_refused_where_something_has_choices() -> None:
    recipe = data_of()["recipe"] | {"parameters": {"normalize": {"choices": [True, False]}}}
    rule = "'cma-es' cannot draw from choices; use 'auto', 'catcma', 'tpe' or 'random'"
    assert problems_of(recipe=recipe, search={"sampler": "cma-es"}) == [("search.sampler", rule)]
    assert spec_with(recipe=recipe, search={"sampler": "tpe"}).search.sampler == "tpe"


@pytest.mark.parametrize("sampler", ["cma-es", "catcma"])
def test_every_reason_why_a_sampler_does_not_fit_is_named_at_once(sampler: str) -> None:
    recipe = data_of()["recipe"] | {"parameters": {"normalize": {"choices": [True, False]}}}
    found = problems_of(recipe=recipe, aggregate="apart", search={"sampler": sampler})
    several = (
        f"'{sampler}' has one objective, `aggregate: apart` several; use 'auto', 'tpe' or 'nsga2'"
    )
    choices = f"'{sampler}' cannot draw from choices; use 'auto', 'catcma', 'tpe' or 'random'"
    rules = [several, choices] if sampler == "cma-es" else [several]
    assert found == [("search.sampler", rule) for rule in rules]


@pytest.mark.parametrize("sampler", ["auto", "gp", "moves", "nsga2", "qmc", "random", "tpe"])
def test_the_other_samplers_take_choices_and_several_objectives(sampler: str) -> None:
    recipe = data_of()["recipe"] | {"parameters": {"normalize": {"choices": [True, False]}}}
    assert spec_with(recipe=recipe, aggregate="apart", search={"sampler": sampler})


@pytest.mark.parametrize(
    ("entry", "path", "rule"),
    [
        ("gsm8k", "score[1]", "expected {evaluator, ...}, got 'gsm8k'"),
        ({"task": "x"}, "score[1].evaluator", f"expected one of {KNOWN}, got nothing"),
        (
            {"evaluator": "lm_eval", "task": 3},
            "score[1].task",
            "expected a text or a mapping, got 3",
        ),
        ({"evaluator": "lm_eval", "task": "x", "k": 3}, "score[1].k", "unknown key"),
    ],
)
def test_a_wrong_score_entry_is_named_by_its_position(entry: Any, path: str, rule: str) -> None:
    good = {"evaluator": "lm_eval", "task": "gain"}
    assert problems_of(score=[good, entry]) == [(path, rule)]


@pytest.mark.parametrize("chance", [-0.1, 1, True, "self", None, float("nan")])
def test_chance_is_a_number_below_1_or_auto(chance: Any) -> None:
    entry = {"evaluator": "lm_eval", "task": "x", "chance": chance}
    ((path, rule),) = problems_of(score=[entry])
    assert path == "score[0].chance"
    assert rule.startswith("expected a number of at least 0 and below 1, or 'auto', got ")


def test_an_entry_counts_what_is_above_chance() -> None:
    entries = [
        {"evaluator": "lm_eval", "task": t, "chance": c} for t, c in (("x", "auto"), ("y", 0))
    ]
    assert [score.chance for score in spec_with(score=entries).scores] == ["auto", 0]


def test_aggregate_is_the_mean_unless_said_otherwise() -> None:
    assert spec_with().aggregate == "mean"
    assert spec_with(aggregate="geometric_mean").aggregate == "geometric_mean"


@pytest.mark.parametrize("kind", ["geometric-mean", 3, ["min"]])
def test_an_aggregate_that_does_not_exist_is_named(kind: Any) -> None:
    ((path, rule),) = problems_of(aggregate=kind)
    assert path == "aggregate"
    assert rule.startswith("expected one of mean, min, geometric_mean, apart, got ")


def test_weights_that_a_minimum_does_not_look_at_are_refused() -> None:
    entries = [{"evaluator": "lm_eval", "task": t, "weight": w} for t, w in (("x", 1), ("y", 2))]
    rule = "'min' is the worst task, whatever its weight; omit the weights, or use 'mean'"
    assert problems_of(score=entries, aggregate="min") == [("aggregate", rule)]


@pytest.mark.parametrize("weight", [0, -1, float("inf"), float("nan"), True, "2", None, 10**400])
def test_a_tasks_weight_is_a_number_above_0(weight: Any) -> None:
    entry = {"evaluator": "lm_eval", "task": "x", "weight": weight}
    ((path, rule),) = problems_of(score=[entry])
    assert path == "score[0].weight"
    assert rule.startswith("expected a number above 0, got ")


def test_the_same_task_twice_is_named_by_its_position_in_the_file() -> None:
    entry = {"evaluator": "lm_eval", "task": "x"}
    other = {"evaluator": "lm_eval", "task": "y"}
    found = problems_of(score=[other, entry, {**entry, "num_fewshot": 5}, {**entry, "weight": 2}])
    assert found == [("score[3]", "the same task stands here twice")]


@pytest.mark.parametrize("score", [[], {}, "gsm8k"])
def test_score_is_a_list_of_tasks(score: Any) -> None:
    ((path, rule),) = problems_of(score=score)
    assert path == "score"
    assert rule.startswith("expected a list of tasks, got ")


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("device", "cuda", "only for `name: hf`; the engine here is 'vllm'"),
        ("parents", "auto", "only for `name: hf`; the engine here is 'vllm'"),
        ("tensor_parallel_size", 0, "must be at least 1, got 0"),
        ("gpu_memory_utilization", 0.0, "must be above 0, got 0.0"),
        ("gpu_memory_utilization", 1.5, "must be at most 1, got 1.5"),
        ("max_model_len", 1, "must be at least 2, got 1"),
    ],
)
def test_a_wrong_value_for_vllm_is_refused(key: str, value: Any, rule: str) -> None:
    assert problems_of(engine={"name": "vllm", key: value}) == [(f"engine.{key}", rule)]


@pytest.mark.parametrize(
    ("key", "value"),
    [("tensor_parallel_size", 2), ("gpu_memory_utilization", 0.5), ("max_model_len", 9)],
)
def test_an_option_of_vllm_is_for_vllm_only(key: str, value: Any) -> None:
    rule = "only for `name: vllm`; the engine here is 'hf'"
    assert problems_of(engine={key: value}) == [(f"engine.{key}", rule)]
    engine = spec_with(engine={"name": "vllm", key: value}).engine
    assert engine.of_vllm() == {key: value}


def test_sections_that_are_not_there_have_their_defaults() -> None:
    spec = spec_with(items=None, search=None, name=None)
    assert (spec.items.search, spec.items.select, spec.items.report) == (300, 300, "rest")
    assert (spec.search.sampler, spec.search.seed, spec.search.trials) == ("auto", 0, 100)
    assert (spec.search.hours, spec.search.finalists) == (None, 8)
    assert (spec.engine.device, spec.engine.batch_size) == ("auto", 64)
    assert spec.baselines == {}


def test_what_the_file_says_arrives() -> None:
    spec = spec_with(search={"hours": 2, "seed": 5}, items={"report": 7}, engine={"batch_size": 3})
    assert (spec.search.hours, spec.search.seed) == (2, 5)
    assert (spec.items.report, spec.engine.batch_size) == (7, 3)
    assert [(s.options.task, s.weight) for s in spec.scores] == [("gain", 1.0), ("loss", 0.5)]
    assert spec.name == "toy"


def test_a_study_without_a_name_has_its_folders() -> None:
    assert spec_with(name=None).name == "zoo"


def test_the_file_and_the_folder_that_holds_it_are_the_same_study(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    spec = study_file.read(tmp_path)
    assert spec == study_file.read(tmp_path / "study.yaml")
    assert spec.folder == tmp_path
    assert spec.results == tmp_path / "results"
    assert spec.roots == (tmp_path, Path.cwd())


def test_a_relative_path_to_the_file_gives_an_absolute_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    assert study_file.read(Path("study.yaml")).folder == tmp_path


def test_a_study_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MergeError, match=r"study\.yaml: cannot be read: .*No such file"):
        study_file.read(tmp_path)


@pytest.mark.parametrize(
    ("storage", "url"),
    [
        (None, "sqlite:////nowhere/zoo/results/study.db"),
        ("sqlite:///results/my.db", "sqlite:////nowhere/zoo/results/my.db"),
        ("sqlite:///../all.db", "sqlite:////nowhere/zoo/../all.db"),
        ("sqlite:////data/all.db", "sqlite:////data/all.db"),
        ("postgresql://host/db", "postgresql://host/db"),
    ],
)
def test_a_relative_sqlite_path_starts_at_the_studys_folder(storage: Any, url: str) -> None:
    assert spec_with(storage=storage).storage == url


def test_baselines_are_read_from_files_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    spec = spec_with(tmp_path, baselines={"mine": "mine.yaml"})
    assert spec.baselines["mine"].references() == ("org/one", "org/two")


def test_a_problem_in_a_baselines_file_has_both_files_paths(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("linear", "lineer"))
    with pytest.raises(DocumentError, match="did you mean") as caught:
        spec_with(tmp_path, baselines={"mine": "mine.yaml", "none": "no.yaml"})
    mine, none = str(caught.value).splitlines()
    assert mine.startswith(f"study.yaml:1: baselines.mine: {tmp_path}/mine.yaml:2: merge_method: ")
    assert none.startswith(f"study.yaml:1: baselines.none: {tmp_path}/no.yaml: cannot be read")


@pytest.mark.parametrize(
    "name",
    [
        "base",
        "uniform",
        "defaults",
        "winner",
        f"{starting_points.PARENT}x",
        f"{starting_points.SIMPLE}x",
    ],
)
def test_a_baseline_cannot_take_a_name_of_the_report(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    rule = f"baselines.{name}: a name that the report uses itself; choose another"
    with pytest.raises(DocumentError, match=rule):
        spec_with(tmp_path, baselines={name: "mine.yaml"})


def test_the_names_of_the_report_are_those_of_the_baselines() -> None:
    ours = (starting_points.BASE, starting_points.UNIFORM, starting_points.DEFAULTS, "winner")
    assert (
        *ours,
        starting_points.PARENT,
        starting_points.SIMPLE,
        selection.FRONT,
        starting_points.STARTED,
        starting_points.PRIOR,
        starting_points.MEAN,
    ) == study_file.OURS


def test_a_start_is_read_from_its_file_and_later_from_what_was_stored(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    seen = spec_with(tmp_path, search={"start": "mine.yaml"})
    assert seen.search.start is not None
    assert seen.recipes == {"start:mine.yaml": seen.search.start}
    stored = {name: recipe.plain() for name, recipe in seen.recipes.items()}
    (tmp_path / "mine.yaml").unlink()
    again = study_file.of_document(yaml_document.Document("db", seen.data, {}), tmp_path, stored)
    assert (again.recipes, again.baselines) == (seen.recipes, {})
    with pytest.raises(DocumentError, match=r"search\.start: .*mine\.yaml"):
        spec_with(tmp_path, search={"start": "mine.yaml"})


@pytest.mark.parametrize("start", [3, True, ["a.yaml"], {"merge_method": "ties"}])
def test_a_start_is_the_name_of_a_recipe_file(start: Any, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"study\.yaml:\d+: search\.start"):
        spec_with(tmp_path, search={"start": start})


def test_stored_baselines_are_taken_instead_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    seen = spec_with(tmp_path, baselines={"mine": "mine.yaml"})
    stored = {name: recipe.plain() for name, recipe in seen.baselines.items()}
    (tmp_path / "mine.yaml").unlink()
    again = study_file.of_document(yaml_document.Document("db", seen.data, {}), tmp_path, stored)
    assert again.baselines == seen.baselines

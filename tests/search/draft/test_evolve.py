import itertools
import re

import pytest
import yaml

from merge_core.errors import DocumentError, MergeError
from search.draft.evolve import How, import_evolve
from search.run.check import check
from tests.search.real import QUICKSTART, run_whole

MODELS = QUICKSTART / "models"
GENOME = {
    "models": ["models/add", "models/sort", "models/rev"],
    "merge_method": "task_arithmetic",
    "base_model": "models/base",
}
TASKS = [{"name": "quickstart_add", "metric": "exact_match,none"}]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "models").symlink_to(MODELS)
    (tmp_path / "tasks").symlink_to(QUICKSTART / "tasks")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(folder, genome=None, tasks=TASKS, **settings):
    genome = {key: x for key, x in {**GENOME, **(genome or {})}.items() if x is not None}
    file = folder / "evolve.yml"
    file.write_text(yaml.safe_dump({"genome": genome, "tasks": tasks, **settings}, sort_keys=False))
    return file


def imported(folder, genome=None, tasks=TASKS, how=None, **settings):
    """Return the study file as plain data, its recipe's first model, and what was told."""
    file = config(folder, genome, tasks, **settings)
    found = import_evolve(file, how or How(), folder / "study", tasks=False)
    data = yaml.safe_load(found.files[0].read_text())
    return data, data["recipe"]["models"][0].get("parameters"), found


def bounds(knob):
    return {key: knob[key] for key in ("low", "high")}


def test_models_base_and_method_are_carried_over_with_paths_of_the_study_file(folder):
    data, _, found = imported(folder)
    assert data["recipe"]["merge_method"] == "task_arithmetic"
    assert data["recipe"]["base_model"] == "../models/base"
    names = [source["model"] for source in data["recipe"]["models"]]
    assert names == ["../models/add", "../models/sort", "../models/rev"]
    assert check(found.files[0], strict=True).facts["dimensions"] == 3


METHODS = ("linear", "task_arithmetic", "ties", "dare_ties")


SHAPES = [(1, None, False), (2, ["self_attn", "mlp"], True), (None, ["mlp"], False)]


@pytest.mark.parametrize(("method", "shape"), [*itertools.product(METHODS, SHAPES)])
def test_check_accepts_a_genome_and_counts_its_genes(folder, method, shape):
    size, filters, smooth = shape
    base = None if method == "linear" else "models/base"
    genome = {"merge_method": method, "base_model": base, "layer_granularity": size}
    genome |= {"filters": filters, "allow_negative_weights": smooth, "smooth": smooth}
    _, _, found = imported(folder, genome)
    bands = 4 // size if size else 1
    params = 1 if method in ("linear", "task_arithmetic") else 2
    genes = bands * 3 * (len(filters or []) + 1) * params
    assert check(found.files[0], strict=True).facts["dimensions"] == genes


def test_granularity_is_a_number_for_so_many_layers(folder):
    assert imported(folder, {"layer_granularity": 2})[1]["weight"]["per"] == 2


def test_granularity_of_one_is_a_number_for_each_layer(folder):
    assert imported(folder, {"layer_granularity": 1})[1]["weight"]["per"] == "layer"


@pytest.mark.parametrize("size", [None, 0, -1])
def test_without_granularity_one_number_holds_for_all_layers(folder, size):
    weight = {"low": 0, "high": 1.5, "start": 1 / 3}
    assert imported(folder, {"layer_granularity": size})[1] == {"weight": weight}


def test_granularity_that_does_not_divide_the_layers_is_told(folder):
    _, _, found = imported(folder, {"layer_granularity": 3})
    assert "wants a divisor of the 4 layers" in found.notes["genome.layer_granularity"]


def test_smooth_is_so_many_anchors_as_there_would_be_bands(folder):
    _, params, found = imported(folder, {"layer_granularity": 2, "smooth": True})
    assert params["weight"] == {"low": 0.0, "high": 1.5, "gradient": 2, "start": 1 / 3}
    assert "final norm and head" in found.notes["genome.smooth"]


def test_smooth_without_granularity_changes_nothing_and_is_told(folder):
    _, params, found = imported(folder, {"smooth": True})
    assert params["weight"] == {"low": 0.0, "high": 1.5, "start": 1 / 3}
    assert "changes nothing, there and here" in found.notes["genome.smooth"]


def test_smooth_models_of_the_hub_need_their_number_of_layers(folder):
    genome = {"models": ["owner/a", "owner/b"], "base_model": "owner/base"}
    genome |= {"layer_granularity": 8, "smooth": True}
    with pytest.raises(MergeError, match=r"genome\.smooth: .* say --layers N"):
        imported(folder, genome)
    _, params, _ = imported(folder, genome, how=How(layers=32))
    assert params["weight"]["gradient"] == 4


def test_each_filter_has_its_number_and_the_rest_has_one(folder):
    cases = imported(folder, {"filters": ["self_attn", "mlp"]})[1]["weight"]
    assert [case.get("filter") for case in cases] == ["self_attn", "mlp", None]


@pytest.mark.parametrize("filters", [None, []])
def test_without_filters_one_number_holds_for_all_tensors(folder, filters):
    assert "low" in imported(folder, {"filters": filters})[1]["weight"]


@pytest.mark.parametrize(("allowed", "low"), [(None, 0), (False, 0), (True, -1.5)])
def test_weights_are_negative_where_they_may_be(folder, allowed, low):
    weight = imported(folder, {"allow_negative_weights": allowed})[1]["weight"]
    assert bounds(weight) == {"low": low, "high": 1.5}


@pytest.mark.parametrize(
    ("method", "said", "wanted"),
    [
        ("linear", None, True),
        ("ties", None, True),
        ("dare_ties", None, True),
        ("task_arithmetic", None, False),
        ("ties", False, False),
        ("task_arithmetic", True, True),
    ],
)
def test_normalize_is_as_said_or_as_mergekit_evolve_has_it(folder, method, said, wanted):
    genome = {"merge_method": method, "normalize": said}
    if method == "linear":
        genome["base_model"] = None
    assert imported(folder, genome)[0]["recipe"]["parameters"] == {"normalize": wanted}


def test_candidates_are_in_bfloat16_as_there(folder):
    assert imported(folder)[0]["recipe"]["dtype"] == "bfloat16"


def test_bounds_are_invented_and_said_so(folder):
    _, params, found = imported(folder, {"merge_method": "ties"})
    assert bounds(params["density"]) == {"low": 0.1, "high": 1.0}
    assert found.notes["bounds"].startswith("invented, since genes have none")
    assert "# bounds: invented, since genes have none" in found.files[0].read_text()


@pytest.mark.parametrize("method", METHODS)
def test_genes_start_where_they_start_there(folder, method):
    base = None if method == "linear" else "models/base"
    genome = {"merge_method": method, "base_model": base, "filters": ["mlp"]}
    data, params, found = imported(folder, {**genome, "layer_granularity": 2})
    assert "baselines" not in data
    wanted = {"weight": pytest.approx(1 / 3), "density": 1.0}
    for name, cases in params.items():
        assert [case["value"]["start"] for case in cases] == [wanted[name]] * 2
    assert len(found.files) == 1


def test_slerp_of_two_models_is_a_search_of_t(folder):
    genome = {"merge_method": "slerp", "base_model": None, "models": ["models/add", "models/sort"]}
    data, _, found = imported(folder, {**genome, "layer_granularity": 2})
    assert data["recipe"]["base_model"] == "../models/add"
    assert data["recipe"]["parameters"] == {"t": {"low": 0.0, "high": 1.0, "per": 2, "start": 0.5}}
    assert check(found.files[0], strict=True).facts["dimensions"] == 2


def test_slerp_begins_at_the_base_that_is_named(folder):
    genome = {"merge_method": "slerp", "base_model": "models/sort"}
    genome |= {"models": ["models/add", "models/sort"], "normalize": True}
    data, _, found = imported(folder, {**genome, "allow_negative_weights": True})
    assert data["recipe"]["base_model"] == "../models/sort"
    for key in ("normalize", "allow_negative_weights"):
        assert found.notes[f"genome.{key}"] == "not carried over: changes nothing for slerp"


def test_a_base_among_the_models_has_no_knob_and_is_told(folder):
    models = ["models/base", "models/add", "models/sort"]
    data, _, found = imported(folder, {"models": models})
    assert len(data["recipe"]["models"]) == 2
    assert "the base's own genes change nothing" in found.notes["genome.models"]
    weight = data["recipe"]["models"][0]["parameters"]["weight"]
    assert weight["start"] == pytest.approx(1 / 3)


def test_the_base_of_linear_is_told(folder):
    data, _, found = imported(folder, {"merge_method": "linear"})
    assert "base_model" not in data["recipe"]
    assert found.notes["genome.base_model"].startswith("not carried over: linear has no base")


@pytest.mark.parametrize(
    "reference",
    [
        {"model": {"path": "owner/a", "revision": "main"}, "lora": "owner/lora"},
        "owner/a@main+owner/lora",
    ],
)
def test_references_are_read_in_each_of_their_forms(folder, reference):
    data, _, _ = imported(folder, {"models": [reference], "base_model": "owner/base"})
    assert data["recipe"]["models"][0]["model"] == "owner/a@main+owner/lora"


@pytest.mark.parametrize("source", ["union", "base", "owner/model"])
def test_a_tokenizer_is_told_with_what_to_do(folder, source):
    _, _, found = imported(folder, {"tokenizer_source": source})
    note = found.notes["genome.tokenizer_source"]
    assert note.startswith("not carried over: candidates have the tokenizer of models/base")
    assert "# genome.tokenizer_source: not carried over" in found.files[0].read_text()


def score(folder, *tasks, **settings):
    data, _, found = imported(folder, None, [*tasks], **settings)
    return data["score"], found.notes


def test_metric_and_filter_are_taken_apart_and_have_their_default(folder):
    tasks = [{"name": "a", "metric": "exact_match,strict-match"}, {"name": "b"}, "c"]
    entries, _ = score(folder, *tasks, {"name": "d", "metric": "acc"})
    assert [(e["task"], e["metric"], e.get("filter")) for e in entries] == [
        ("a", "exact_match", "strict-match"),
        ("b", "acc", "none"),
        ("c", "acc", "none"),
        ("d", "acc", None),
    ]


def test_weights_of_tasks_are_kept(folder):
    entries, _ = score(folder, {"name": "a", "weight": 2}, {"name": "b", "weight": 1.0})
    assert [entry.get("weight", 1) for entry in entries] == [2, 1]


def test_a_negative_weight_of_a_perplexity_is_its_direction(folder):
    task = {"name": "a", "metric": "word_perplexity,none", "weight": -0.5}
    entries, notes = score(folder, task)
    assert entries[0]["weight"] == 0.5
    assert notes["tasks[0].weight"].startswith("-0.5 is 0.5 here")


def test_a_negative_weight_of_an_accuracy_is_refused(folder):
    with pytest.raises(MergeError, match=r"tasks\[0\]\.weight: must be above 0, got -1"):
        score(folder, {"name": "a", "weight": -1})


def test_a_task_without_weight_is_left_out_and_told(folder):
    entries, notes = score(folder, {"name": "a", "weight": 0}, "b")
    assert [entry["task"] for entry in entries] == ["b"]
    assert notes["tasks[0].weight"] == "not carried over: a with the weight 0 has no say"
    with pytest.raises(MergeError, match="tasks: none is left"):
        score(folder, {"name": "a", "weight": 0})


def test_examples_are_kept(folder):
    assert score(folder, "a", num_fewshot=5)[0][0]["num_fewshot"] == 5
    assert "num_fewshot" not in score(folder, "a")[0][0]


@pytest.fixture(autouse=True)
def each_study_is_written_anew(monkeypatch):
    """Let a test import several configurations to one place."""
    monkeypatch.setattr("search.draft.write._free", lambda file: None)


def test_a_chat_template_is_used_by_default_where_there_is_one(folder):
    entries, notes = score(folder, "a")
    assert "apply_chat_template" not in entries[0]
    assert notes["apply_chat_template"].endswith("not here: no chat template")
    hub = {"models": ["owner/a"], "base_model": "owner/base"}
    data, _, found = imported(folder, hub)
    assert data["score"][0]["apply_chat_template"] is True
    assert found.notes["apply_chat_template"].startswith("true, as it is where")


@pytest.mark.parametrize(("said", "kept"), [(True, True), (False, None)])
def test_a_chat_template_is_used_as_said(folder, said, kept):
    entries, notes = score(folder, "a", apply_chat_template=said, fewshot_as_multiturn=False)
    assert entries[0].get("apply_chat_template") is kept
    assert entries[0].get("fewshot_as_multiturn") is (False if said else None)
    assert "apply_chat_template" not in notes


def test_limit_says_how_many_items_steer(folder):
    data, _, found = imported(folder, None, ["a", "b"], limit=40)
    assert data["items"] == {"search": 80, "select": 80, "report": "rest"}
    assert found.notes["limit"].startswith("the first 40 items of each task steered")


@pytest.mark.parametrize("key", ["shuffle", "random_init"])
def test_what_has_no_counterpart_is_told_by_name(folder, key):
    assert key not in score(folder, "a", **{key: False})[1]
    assert score(folder, "a", **{key: True})[1][key].startswith("not carried over: ")


def test_keys_that_mergekit_evolve_passes_over_are_told_by_name(folder):
    tasks = [{"name": "a", "colour": "red"}]
    _, _, found = imported(folder, {"quux": 1}, tasks, wandb_run="x")
    passed = {key for key, text in found.notes.items() if "has no such key" in text}
    assert passed == {"genome.quux", "tasks[0].colour", "wandb_run"}


def test_budget_and_task_files_come_from_the_command_line(folder):
    how = How(trials=7, include_path=folder.__class__("tasks"))
    data, _, _ = imported(folder, how=how)
    assert data["search"] == {"sampler": "auto", "seed": 0, "trials": 7}
    assert data["score"][0]["include_path"] == "../tasks"


@pytest.mark.parametrize(
    ("genome", "problem"),
    [
        ({"merge_method": "dare_ties", "base_model": None}, r"base_model: required by .*dare_ties"),
        ({"merge_method": "ties", "base_model": None}, r"base_model: required by .*'ties'"),
        ({"base_model": None}, "base_model: required by .*name the model that all were tuned from"),
        ({"merge_method": "slerp"}, "models: a study searches 'slerp' between two models, got 3"),
        (
            {"merge_method": "slerp", "models": ["models/add", "models/sort"]},
            "base_model: 'slerp' has two models and no base beside them",
        ),
        (
            {
                "merge_method": "slerp",
                "models": ["models/add", "models/base"],
                "smooth": True,
                "filters": ["mlp"],
            },
            r"smooth: .*\n.*filters: mergekit-evolve has none for 'slerp'",
        ),
        ({"merge_method": "della"}, "merge_method: expected one of linear, task_arithmetic"),
        ({"models": []}, r"models: expected a list of models, got \[\]"),
        ({"models": ["models/add", "models/add"]}, "models: a model is listed twice"),
        ({"models": ["models/base"]}, "models: has the base alone"),
        ({"models": None}, "models: required: a list of models"),
        ({"layer_granularity": "x"}, "layer_granularity: expected a whole number, got 'x'"),
        ({"layer_granularty": 8}, "unknown key, did you mean 'layer_granularity'"),
        ({"filters": "mlp"}, "filters: expected a list of parts"),
        ({"models": ["{{ model }}"]}, r"models\[0\]: .* is a placeholder"),
    ],
)
def test_a_genome_that_makes_no_study_is_refused_with_line_and_reason(folder, genome, problem):
    with pytest.raises(DocumentError, match=rf"evolve\.yml:\d+: genome\.(\w+: )?{problem}"):
        imported(folder, genome)
    assert not (folder / "study").exists()


@pytest.mark.parametrize(
    ("tasks", "problem"),
    [
        ([], "tasks: expected a list of tasks, got an empty list"),
        (None, "tasks: expected a list of tasks, got nothing"),
        ([{"weight": 1}], r"tasks\[0\]\.name: required"),
        ([{"name": "a", "weight": "x"}], r"tasks\[0\]\.weight: expected a number"),
        ([3], r"tasks\[0\]: expected a mapping, got 3"),
    ],
)
def test_tasks_that_are_none_are_refused(folder, tasks, problem):
    with pytest.raises(DocumentError, match=problem):
        imported(folder, tasks=tasks)


def test_every_problem_is_told_at_once(folder):
    genome = {"merge_method": "x", "smooth": "y"}
    with pytest.raises(DocumentError) as caught:
        imported(folder, genome, [{"nam": "a"}], limit=-1)
    paths = {problem.path for problem in caught.value.problems}
    assert {"genome.merge_method", "genome.smooth", "tasks[0].nam", "limit"} <= paths


def test_a_file_without_a_genome_is_refused(folder):
    file = folder / "evolve.yml"
    file.write_text("merge_method: linear\n")
    with pytest.raises(DocumentError, match="expected genome and tasks, as mergekit-evolve has"):
        import_evolve(file, How(), folder / "study", tasks=False)


def test_parents_of_different_architectures_are_refused(folder, family):
    models = ["models/add", str(family("gpt-neox") / "one")]
    with pytest.raises(MergeError, match=r"gpt_neox|architecture"):
        imported(folder, {"models": models})
    assert not (folder / "study").exists()


@pytest.mark.slow
def test_a_configuration_from_scratch_is_run_to_its_end(folder):
    genome = {"merge_method": "dare_ties", "layer_granularity": 2}
    file = config(folder, {**genome, "models": ["models/add", "models/sort"]}, limit=10)
    how = How(trials=2, include_path=folder.__class__("tasks"))
    study = import_evolve(file, how, folder / "study", tasks=True).files[0]
    data = yaml.safe_load(study.read_text())
    assert data["items"] == {"search": 10, "select": 10, "report": "rest"}
    study.write_text(
        re.sub(r"items: .*", "items: {search: 8, select: 6, report: 10}", study.read_text())
    )
    summary = run_whole(study)
    assert summary["winner"]["report"]["mean"] > 0

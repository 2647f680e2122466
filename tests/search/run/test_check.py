"""What a file would do is said without torch, Optuna, transformers or lm-eval."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from merge_core.errors import CheckpointError, DocumentError, ParameterError
from merge_core.methods.registry import method
from search.run.check import check
from search.spec.study_file import read
from tests.search import toy

HEAVY = {"torch", "optuna", "transformers", "lm_eval", "scipy", "datasets"}
STUDY = toy.STUDY.replace("org/", "zoo/")
RECIPE = """
merge_method: linear
models:
  - {model: zoo/one, parameters: {weight: 1}}
  - {model: zoo/two, parameters: {weight: 2}}
"""


def write_model(
    folder: Path, tensors: tuple[str, ...] = toy.TENSORS, shape: tuple[int, ...] = (0,)
) -> None:
    """Make a model folder whose file has a header, and zeros that take no room on the disk."""
    size, header = 4 * math.prod(shape), {"__metadata__": {"format": "pt"}}
    for i, name in enumerate(tensors):
        place = [i * size, (i + 1) * size]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": place}
    text = json.dumps(header).encode()
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(folder / "model.safetensors", 8 + len(text) + size * len(tensors))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a study file and the models that it names."""
    (tmp_path / "study.yaml").write_text(STUDY)
    for name in ("base", "one", "two"):
        write_model(tmp_path / "zoo" / name)
    return tmp_path


def changed(folder: Path, **search: Any) -> Path:
    """Write the study file with other values in its search section; return the file."""
    data = yaml.safe_load(STUDY)
    data["search"].update(search)
    (folder / "study.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return folder / "study.yaml"


def test_the_facts_of_a_study_with_local_models(folder: Path) -> None:
    size = (folder / "zoo/one/model.safetensors").stat().st_size
    assert check(changed(folder, trials=12)).facts == {
        "study": "toy",
        "merge_method": ["task_arithmetic"],
        "models": ["zoo/one", "zoo/two", "zoo/base"],
        "tasks": ["gain", "loss"],
        "aggregate": "mean",
        "knobs": 2,
        "sampler": "random",
        "trials": 12,
        "storage": f"sqlite:///{folder}/results/study.db",
        "baselines": [name.replace("org/", "zoo/") for name in toy.BASELINES],
        "budget": "10 baselines and 12 trials on 20 items each; then at most 5 candidates on 20 "
        "others, 6 on 20, 2 on a part",
        "memory": {"model": 0, "parents": 3 * size, "computed once": 0},
        "computed once": "about 0.0 s, 0 MiB",
        "dimensions": 3,
        "dimension_names": ["weight/one/layers 0-1", "weight/one/layers 2-3", "weight/two"],
    }


def test_metrics_that_steer_are_named_with_their_tasks(folder: Path) -> None:
    quiz = "  - {evaluator: multiple_choice, file: x, prompt: x, choices: x, steer: margin}\n"
    text = STUDY.replace("task: gain", "task: gain, steer: probability")
    (folder / "study.yaml").write_text(text.replace("items:", f"{quiz}items:"))
    assert check(folder).facts["steer"] == ["gain by probability", "multiple_choice by margin"]
    (_, out), _ = run("check", str(folder), "--no-tasks")
    assert "\nsteer: gain by probability, multiple_choice by margin\n" in out


def test_what_is_computed_once_goes_by_entries_models_and_methods(tmp_path: Path) -> None:
    for name in ("base", "one", "two"):
        write_model(tmp_path / "zoo" / name, shape=(2**20, 128))
    study = STUDY.replace("task_arithmetic", "{choices: [task_arithmetic, della]}")
    (tmp_path / "study.yaml").write_text(study)
    entries = 2 * len(toy.TENSORS) * 2**27  # of two models beside the base, 16-bit ranks each
    seconds = 1e-9 * method("della").once_ns * entries
    assert seconds > 1
    assert check(tmp_path).facts["computed once"] == (
        f"about {seconds:.1f} s, {2 * entries // 2**20} MiB"
    )


def test_a_study_is_checked_by_its_file_or_its_folder(folder: Path) -> None:
    assert check(folder) == check(folder / "study.yaml")


def weighted(folder: Path, weight: Any) -> list[str]:
    """Write the study file with another weight of its first model; return what is warned of."""
    data = yaml.safe_load(STUDY)
    data["recipe"]["models"][0]["parameters"]["weight"] = weight
    data["search"]["trials"] = 100
    (folder / "study.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return check(folder).warnings


def test_a_filter_that_matches_nothing_is_a_warning(folder: Path) -> None:
    fixed = [{"filter": "self_atn", "value": 0.5}, {"value": 1.0}]
    place = "recipe.models[0].parameters.weight[0].filter"
    told = f"{place}: 'self_atn' changes nothing: no tensor of the models has it in its name"
    assert weighted(folder, fixed) == [told]
    searched = [{"filter": "self_atn", "value": {"low": 0, "high": 1}}, {"value": 1.0}]
    assert weighted(folder, searched)[0] == told
    assert weighted(folder, [{"filter": "self_attn", "value": 0.5}, {"value": 1.0}]) == []
    assert weighted(folder, [{"filter": "*", "value": 0.5}]) == []


def test_more_layers_to_a_number_than_there_are_is_a_warning(folder: Path) -> None:
    place = "recipe.models[0].parameters.weight"
    (warning,) = weighted(folder, {"low": 0, "high": 1, "per": 5})
    assert warning == (
        f"{place}: `per: 5` is beyond the 4 layers there: one number decides all of them; write a "
        "smaller one, or omit `per`"
    )
    for per in (1, 4, "tensor"):
        assert weighted(folder, {"low": 0, "high": 1, "per": per}) == []


@pytest.mark.parametrize(("trials", "warned"), [(11, True), (12, False)])
def test_more_dimensions_than_the_trials_can_search_are_a_warning(
    folder: Path, trials: int, warned: bool
) -> None:
    warnings = check(changed(folder, trials=trials)).warnings
    rule = (
        f"3 dimensions are many for {trials} trials, which can search about 2: one number for each "
        "range that is finer makes 2, or `sampler: auto`, or plan 12 trials"
    )
    assert warnings == ([rule] if warned else [])


def test_a_study_without_knobs_has_nothing_to_search(folder: Path) -> None:
    data = yaml.safe_load(STUDY)
    data["recipe"]["models"] = [{"model": "zoo/one", "parameters": {"weight": 1}}]
    (folder / "study.yaml").write_text(yaml.safe_dump(data))
    found = check(folder)
    assert found.facts["dimensions"] == 0
    assert found.warnings == ["the recipe has no range and no choices: there is nothing to search"]


def test_names_that_are_no_folders_are_taken_for_hub_ids_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(toy.STUDY)
    found = check(tmp_path)
    assert "dimensions" not in found.facts
    assert found.warnings == [
        *(
            f"org/{name}: no folder of that name; it will be looked up on the hub"
            for name in ("one", "two", "base")
        ),
        "dimensions are not counted: the model's files are not here",
    ]


@pytest.mark.parametrize("reference", ["./three", "/zoo/three", "zoo/a/three", "~/no/such/three"])
def test_a_path_to_no_folder_is_an_error(folder: Path, reference: str) -> None:
    (folder / "study.yaml").write_text(STUDY.replace("zoo/two", reference))
    with pytest.raises(
        CheckpointError, match=f"model '{reference}': no such folder in {folder} or"
    ):
        check(folder)


def test_a_damaged_model_is_an_error_that_names_its_file(folder: Path) -> None:
    (folder / "zoo/base/model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{nonsense")
    with pytest.raises(
        CheckpointError, match=r"base/model\.safetensors: damaged or no safetensors file: "
    ):
        check(folder)


def test_a_bad_study_is_refused_with_all_its_problems(folder: Path) -> None:
    (folder / "study.yaml").write_text(STUDY.replace("seed: 3", "seed: true, sead: 3"))
    with pytest.raises(DocumentError, match=r"search\.seed: expected a whole number") as caught:
        check(folder)
    assert [p.path for p in caught.value.problems] == ["search.seed", "search.sead"]


def test_knobs_that_do_not_fit_the_models_are_problems_of_the_file_all_at_once(
    folder: Path,
) -> None:
    text = STUDY.replace("per: 2", "per: [[0, 1]]").replace(
        "high: 1.5}}}", "high: 1.5, cosine: 9}}}"
    )
    (folder / "study.yaml").write_text(text)
    with pytest.raises(DocumentError) as caught:
        check(folder)
    first, second = str(caught.value).splitlines()
    rule = "the bands end at layer 1, the model's layers at 3; they must reach the last one"
    assert first.endswith(f"study.yaml:7: recipe.models[0].parameters.weight: {rule}")
    rule = "cosine: 9 needs as many layers, the model has 4"
    assert second.endswith(f"study.yaml:8: recipe.models[1].parameters.weight: {rule}")


def test_dimensions_that_reach_no_tensor_are_a_warning(folder: Path) -> None:
    one = "[{filter: lm_head, value: {low: 0, high: 1, per: 2}}, {value: 1}]"
    two = "[{filter: visual, value: {low: 0, high: 1}}, {value: 1}]"
    text = STUDY.replace("{low: 0.0, high: 1.5, per: 2}", one)
    (folder / "study.yaml").write_text(text.replace("{low: 0.0, high: 1.5}", two))
    assert (
        "2 dimensions reach no tensor of the models: weight/one/lm_head/layers 0-1, "
        "weight/two/visual; search what the filter hits, or omit the knob"
    ) in check(folder).warnings
    (folder / "study.yaml").write_text(STUDY)
    assert not any("reach no tensor" in warning for warning in check(folder).warnings)


def test_a_start_that_is_no_point_of_the_space_is_a_problem_of_the_file(folder: Path) -> None:
    (folder / "mine.yaml").write_text(RECIPE)
    file = changed(folder, start="mine.yaml")
    rule = r"study\.yaml:\d+: search\.start: no point of this space: recipe\.merge_method: expected"
    with pytest.raises(DocumentError, match=rule):
        check(file)


def test_a_recipe_file_is_checked_as_a_recipe(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE)
    found = check(folder / "recipe.yaml")
    assert (found.facts["merge_method"], found.warnings) == ("linear", [])
    assert found.facts["models"] == ["zoo/one", "zoo/two"]
    assert len(found.facts["recipe_digest"]) == 64


MIXTURE = """
base_model: zoo/one
experts:
  - {source_model: zoo/one, positive_prompts: [add]}
  - {source_model: zoo/two, positive_prompts: [sort]}
"""


@pytest.mark.parametrize(
    ("config", "kind"),
    [({"model_type": "llama"}, "Mixtral"), ({"model_type": "qwen3"}, "Qwen3 MoE")],
)
def test_a_mixture_is_checked_as_a_recipe(folder: Path, config: dict[str, str], kind: str) -> None:
    as_models(folder, config, config)
    (folder / "moe.yaml").write_text(MIXTURE)
    found = check(folder / "moe.yaml")
    said = f"2 experts, 2 per token, routers hidden; class {kind}"
    assert (found.facts["merge_method"], found.facts["mixture"]) == ("passthrough", said)
    assert found.facts["models"] == ["zoo/one", "zoo/two"]


def as_models(folder: Path, *configs: dict[str, object]) -> None:
    """Let the models have configs, and the first one a tokenizer."""
    for name, config in zip(("one", "two"), configs, strict=True):
        (folder / "zoo" / name / "config.json").write_text(json.dumps(config))
    (folder / "zoo" / "one" / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize("nested", [False, True])
def test_experts_of_another_size_and_a_missing_tokenizer_are_problems_of_the_file(
    folder: Path, nested: bool
) -> None:
    llama = {"model_type": "llama", "hidden_size": 64}
    as_models(folder, llama, {**llama, "hidden_size": 32})
    (folder / "zoo" / "one" / "tokenizer.json").unlink()
    inner = MIXTURE.replace("\n", "\n  ").rstrip()
    (folder / "moe.yaml").write_text(f"moe:{inner}\n" if nested else MIXTURE)
    with pytest.raises(DocumentError) as caught:
        check(folder / "moe.yaml")
    first, second = str(caught.value).splitlines()
    assert "gate_mode: hidden reads prompts, and zoo/one has no tokenizer" in first
    place = "moe.experts[1]" if nested else "experts[1]"
    assert f"moe.yaml:5: {place}.source_model: hidden_size: zoo/one has 64" in second


def test_a_mixture_of_which_there_is_no_class_is_refused(folder: Path) -> None:
    (folder / "zoo" / "one" / "config.json").write_text('{"model_type": "gpt2"}')
    (folder / "moe.yaml").write_text(MIXTURE)
    with pytest.raises(ParameterError, match="zoo/one is a model of type 'gpt2', of which no"):
        check(folder / "moe.yaml")


def test_the_class_of_a_mixture_whose_base_is_elsewhere_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "moe.yaml").write_text(MIXTURE)
    found = check(tmp_path / "moe.yaml")
    assert found.facts["mixture"].endswith("; class not known yet")
    assert len(found.warnings) == 2


def test_a_recipes_models_are_looked_for_too(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert check(tmp_path / "recipe.yaml").warnings == [
        f"zoo/{name}: no folder of that name; it will be looked up on the hub"
        for name in ("one", "two")
    ]


def test_a_bad_recipe_is_refused_as_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("weight: 2", "wieght: 2"))
    with pytest.raises(
        DocumentError, match=r"yaml:5: models\[1\]\.parameters\.wieght: 'linear' has"
    ):
        check(tmp_path / "recipe.yaml")


IDLE = RECIPE.replace("weight: 1", "weight: 1, density: 0.5")
REASON = "models[0].parameters.density: changes nothing: "


def test_a_recipe_whose_chat_template_does_not_compile_is_refused(folder: Path) -> None:
    (folder / "r.yaml").write_text(f"{RECIPE}chat_template: '{{% foo %}}'\n")
    with pytest.raises(ParameterError, match=r"^chat_template: no valid Jinja: line 1: .*foo"):
        check(folder / "r.yaml")


def test_what_a_recipe_says_in_vain_is_a_warning_or_with_strict_an_error(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(IDLE)
    (line,) = check(folder / "recipe.yaml").warnings
    assert line.startswith(f"{folder}/recipe.yaml:4: {REASON}")
    with pytest.raises(DocumentError, match=re.escape(f"recipe.yaml:4: {REASON}")):
        check(folder / "recipe.yaml", strict=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    check(folder / "recipe.yaml", strict=True)


def test_what_a_study_and_its_baselines_say_in_vain_are_warnings_too(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(IDLE)
    data = yaml.safe_load(STUDY)
    data["recipe"]["parameters"] = {"density": 0.5}
    data["baselines"] = {"mine": "recipe.yaml"}
    (folder / "study.yaml").write_text(yaml.safe_dump(data))
    first, second, *_ = check(folder).warnings
    assert "study.yaml:" in first
    assert "recipe.parameters.density: changes nothing: " in first
    assert REASON in second
    with pytest.raises(DocumentError, match=r"recipe\.parameters\.density: changes nothing"):
        check(folder, strict=True)
    assert f"warning: {first}\n" in run_err("check", str(folder), "--no-tasks")


def test_a_linked_study_file_has_its_models_where_the_run_looks_for_them(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("elsewhere") / "study.yaml"
    (folder / "study.yaml").rename(file)
    (folder / "study.yaml").symlink_to(file)
    assert read(folder).folder == folder
    assert check(folder).facts["storage"] == f"sqlite:///{folder}/results/study.db"
    assert check(folder).facts["dimensions"] == 3


def run(*arguments: str) -> tuple[Any, set[str]]:
    """Run the command line in a new process; return its exit code and the modules it imported."""
    code = (
        "import sys; from search.cli import main; sys.argv[0] = 'mergetune'\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, *sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    exit_code, *modules = done.stderr.splitlines()[-1].split()
    return (exit_code, done.stdout), {name.partition(".")[0] for name in modules}


def run_err(*arguments: str) -> str:
    command = [sys.executable, "-m", "mergetune", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr


def test_help_imports_nothing_heavy() -> None:
    (code, out), modules = run("check", "--help")
    assert code == "0"
    assert "Read a study or a recipe" in out
    assert not modules & HEAVY


@pytest.mark.slow
def test_the_version_and_what_completes_a_command_import_nothing_heavy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (code, out), modules = run("--version")
    assert (code, out) == ("0", f"mergetune {version('mergetune')}\n")
    assert not modules & HEAVY
    monkeypatch.setenv("_MERGETUNE_COMPLETE", "complete_bash")
    for line, found in (("mergetune tri", "trials"), ("mergetune methods dare_l", "dare_linear")):
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        (_, out), modules = run()
        assert out.split() == [found]
        assert not modules & HEAVY


def test_checking_a_study_without_its_tasks_imports_nothing_heavy(folder: Path) -> None:
    (code, out), modules = run("check", str(folder), "--json", "--no-tasks")
    assert code == "0"
    assert json.loads(out)["dimensions"] == 3
    assert not modules & HEAVY


def test_checking_a_recipe_imports_nothing_heavy(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE)
    (code, out), modules = run("check", str(folder / "recipe.yaml"))
    assert code == "0"
    assert "linear" in out
    assert not modules & HEAVY


def test_checking_a_mixture_imports_nothing_heavy(folder: Path) -> None:
    as_models(folder, {"model_type": "llama"}, {"model_type": "llama"})
    (folder / "moe.yaml").write_text(MIXTURE)
    (code, out), modules = run("check", str(folder / "moe.yaml"))
    assert code == "0"
    assert "class Mixtral" in out
    assert not modules & HEAVY

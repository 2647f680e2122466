import json

import pytest

from tests.search.real import QUICKSTART


@pytest.fixture(autouse=True)
def models_and_tasks(monkeypatch, tmp_path):
    """The working directory has those of the quickstart."""
    (tmp_path / "models").symlink_to(QUICKSTART / "models")
    (tmp_path / "tasks").symlink_to(QUICKSTART / "tasks")
    monkeypatch.chdir(tmp_path)


INIT = ("init", "--base", "models/base", "models/add", "models/sort", "--file", "tasks/add.jsonl")


def test_init_says_what_it_wrote_and_what_comes_next(mergetune, tmp_path):
    code, out, err = mergetune(*INIT)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "study.yaml: written",
        "next: mergetune run study.yaml  (a search of 76 numbers, 100 trials)",
    ]
    assert mergetune("check", "study.yaml")[0] == 0
    code, _, err = mergetune(*INIT)
    assert code == 1
    assert err == "mergetune: study.yaml: exists and is left as it is; name another with --out\n"


def test_init_json_has_the_files_and_what_check_says(mergetune):
    code, out, _ = mergetune(*INIT, "--out", "first", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["files"] == ["first/study.yaml"]
    assert found["check"]["dimensions"] == 76
    assert found["warnings"] == []


EVOLVE = """
genome: {models: [models/add, models/sort], merge_method: ties, base_model: models/base, wandb: x}
tasks: [{name: quickstart_add, metric: "exact_match,none"}]
"""


def test_import_evolve_says_by_name_what_is_not_carried_over(mergetune, tmp_path):
    (tmp_path / "evolve.yml").write_text(EVOLVE)
    code, out, err = mergetune("import-evolve", "evolve.yml", "--no-tasks", "--out", "a")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "a/study.yaml: written"
    assert {line.partition(":")[0] for line in lines[1:-1]} == {
        "bounds", "apply_chat_template", "genome.wandb",
    }  # fmt: skip
    code, out, _ = mergetune("import-evolve", "evolve.yml", "--no-tasks", "--out", "b", "--json")
    assert json.loads(out)["notes"].keys() == {"bounds", "apply_chat_template", "genome.wandb"}
    code, _, err = mergetune("import-evolve", "evolve.yml", "--no-tasks", "--out", "a")
    assert (code, err.startswith("mergetune: a/study.yaml: exists")) == (1, True)


def test_import_mergekit_makes_a_study_and_its_baseline(mergetune, tmp_path):
    recipe = "merge_method: linear\nparameters: {weight: 0.5}\nmodels: [{model: models/add}]\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    command = ("import-mergekit", "recipe.yaml", "--file", "tasks/add.jsonl", "--out", "x.yaml")
    code, out, err = mergetune(*command)
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == ["x.yaml: written", "x-original.yaml: written"]
    assert mergetune("check", "x.yaml", "--strict")[0] == 0
    code, _, err = mergetune("import-mergekit", "recipe.yaml", "--out", "y.yaml")
    assert (code, "--task" in err) == (1, True)


def test_a_name_cannot_steer_the_terminal(mergetune, tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"x\x1b[2J": "a", "y": "b"}))
    code, _, err = mergetune(*INIT[:-1], "q.jsonl")
    assert code == 1
    assert "x\\x1b[2J" in err
    assert "\x1b" not in err

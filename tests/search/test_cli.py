import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from evaluators.harness import task_files
from search import cli
from search.commands import answers as answers_command
from search.commands import reproduce, stored
from search.samplers.registry import SAMPLERS
from search.storage.locate import open_study
from tests.search.real import QUICKSTART, run_whole, write_study

MODELS = QUICKSTART / "models"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = write_study(tmp_path_factory.mktemp("cli") / "small", trials=1)
    run_whole(path)
    return path


def test_run_of_a_finished_study_prints_every_candidate_and_the_winners_differences(
    mergetune, study
):
    code, out, _ = mergetune("run", study)
    assert code == 0
    for words in ("base", "uniform", "the best parent", "95 % interval", "20 report items"):
        assert words in out


def test_run_json_prints_the_summary(mergetune, study):
    code, out, _ = mergetune("run", study.parent, "--json")
    assert code == 0
    assert json.loads(out) == json.loads((study.parent / "results" / "summary.json").read_text())


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--trials", 0], "--trials: must be at least 1, got 0"),
        (["--hours", "-1"], "--hours: must be above 0, got -1.0"),
        (["--more", 1, "--trials", 2], "cannot go with --more"),
        (["--more", "x"], "Invalid value for '--more'"),
    ],
)
def test_options_that_make_no_budget_are_bad_usage(mergetune, study, options, rule):
    code, _, err = mergetune("run", study, *options)
    assert code == 2
    assert rule in " ".join(err.replace("│", " ").split())


def test_run_with_more_trials_goes_on_with_a_finished_study(mergetune, tmp_path):
    path = write_study(tmp_path / "small", trials=1)
    run_whole(path)
    before = len(open_study(str(path))[1].trials)
    code, out, _ = mergetune("run", path, "--more", 2, "--json")
    assert code == 0
    assert json.loads(out)["ended"] == {"by": "trials", "why": "3 trials are searched"}
    assert len(open_study(str(path))[1].trials) == before + 2


def test_dry_runs_say_what_the_whole_costs_and_store_nothing(mergetune, tmp_path):
    path = write_study(tmp_path / "small", trials=5)
    code, out, _ = mergetune("run", path, "--dry-run", "--trials", 9, "--json")
    assert (code, json.loads(out)["candidates"]["trials"]) == (0, 9)
    code, out, _ = mergetune("check", path, "--dry-run", "--json")
    assert (code, json.loads(out)["dry_run"]["candidates"]["trials"]) == (0, 5)
    code, out, _ = mergetune("check", path, "--dry-run")
    assert "\nin all: about " in out
    assert mergetune("check", path, "--dry-run", "--no-tasks")[0] == 2
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_trials_json_has_the_keys_that_scripts_rely_on(mergetune, study):
    code, out, _ = mergetune("trials", study, "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["number"] for row in rows] == list(range(len(rows)))
    assert set(rows[0]) == {
        "number", "state", "baseline", "params", "recipe_digest", "weights_digest", "value",
        "stderr", "items",
    }  # fmt: skip
    assert rows[0]["baseline"] == "base"
    assert rows[-1]["baseline"] is None
    assert rows[-1]["params"].keys() == {
        f"weight/{name}/layers {band}" for name in ("add", "sort") for band in ("0-1", "2-3")
    }


def test_a_database_alone_brings_no_code_of_task_files(mergetune, monkeypatch, tmp_path):
    path = write_study(tmp_path / "coded", trials=1)
    tasks = shutil.copytree(QUICKSTART / "tasks", tmp_path / "coded" / "tasks")
    path.write_text(path.read_text().replace(str(QUICKSTART / "tasks"), "tasks"))
    file = tasks / "add.yaml"
    file.write_text(file.read_text() + "process_docs: !function code.docs\n")
    ran, line = tasks / "RAN", len(file.read_text().splitlines())
    (tasks / "code.py").write_text(
        f"def docs(x):\n    open({str(ran)!r}, 'w').close()\n    return x\n"
    )
    monkeypatch.setattr(task_files, "_trusted", [False])
    url = f"sqlite:///{path.parent / 'results' / 'study.db'}"
    refusal = f"mergetune: {file}:{line}: code of a task file runs only with --trust-tasks, got "
    commands = ["run", path], ["reproduce", url, "--trial", "0"]
    for command in commands:
        code, _, errors = mergetune(*command)
        assert code == 1
        assert errors.splitlines()[-1].startswith(refusal)
        assert not ran.exists()
        assert mergetune(*command, "--trust-tasks")[0] == 0
        ran.unlink()
        monkeypatch.setattr(task_files, "_trusted", [False])


def test_best_shows_the_winning_recipe(mergetune, study):
    code, out, _ = mergetune("best", study)
    assert code == 0
    assert "is the number that holds.\n" in out
    assert (
        "search items unseen, of candidates that were not better than the best by 0.02.\n\nmerge"
        in out
    )
    code, out, _ = mergetune("best", study, "--json")
    assert json.loads(out)["recipe"]["merge_method"] in ("task_arithmetic", "linear")


def test_answers_of_two_trials_stand_below_each_other_with_what_is_right(
    mergetune, study, monkeypatch
):
    command = ("answers", study, "--trial", "uniform", "--against", "add", "--limit", 2)
    code, out, err = mergetune(*command, "--task", "quickstart_add", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["trials"][0]["baseline"] == "uniform"
    answers = found["tasks"]["quickstart_add"]["answers"]
    assert len(answers) == 2
    for one in answers:
        assert one["prompt"].startswith("add ")
        for side in one["said"]:
            assert side["score"] == (side["answer"].strip() == one["right"])
    code, out, _ = mergetune(*command)
    assert (code, out.count("--- item")) == (0, 4)
    assert f"right: {answers[0]['right']}\n" in out
    monkeypatch.setattr(answers_command, "Worker", None)  # what is kept needs no model
    code, out, err = mergetune("answers", study, "--wrong")
    assert (code, err) == (0, "")
    assert " does not get right, of 10 items of the report pool" in out
    code, _, err = mergetune("answers", study, "--trial", "unifrom")
    assert (code, err.count("\n")) == (1, 1)


def test_merge_makes_a_folder_and_refuses_to_make_it_twice(mergetune, study, tmp_path):
    recipe = study.parent / "results" / "best.yaml"
    assert mergetune("merge", recipe, tmp_path / "out")[0] == 0
    code, _, err = mergetune("merge", recipe, tmp_path / "out")
    assert code == 1
    assert "exists; choose another place or pass --overwrite" in err
    code, out, _ = mergetune("merge", recipe, tmp_path / "out", "--overwrite", "--json")
    summary = json.loads((study.parent / "results" / "summary.json").read_text())
    assert code == 0
    assert json.loads(out)["weights_digest"] == summary["winner"]["weights_digest"]


def test_merge_warns_of_what_changes_nothing_and_refuses_it_with_strict(mergetune, study, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    best = (study.parent / "results" / "best.yaml").read_text()
    recipe.write_text(f"{best}embed_slerp: true\nnormalize: false\n")
    code, _, err = mergetune("merge", recipe, tmp_path / "out", "--strict")
    assert code == 1
    assert [line.split(": ")[1] for line in err.splitlines()] == ["embed_slerp", "normalize"]
    assert not (tmp_path / "out").exists()


def test_export_writes_the_trial_that_was_asked_for(mergetune, study, tmp_path):
    code, out, _ = mergetune("export", study, tmp_path / "out", "--trial", "0")
    assert code == 0
    assert "trial 0, weights digest" in out
    record = json.loads((tmp_path / "out" / "mergetune.json").read_text())
    rows = json.loads(mergetune("trials", study, "--json")[1])
    assert record["weights_digest"] == rows[0]["weights_digest"]
    code, out, _ = mergetune("export", study, tmp_path / "again", "--trial", "base", "--json")
    assert json.loads(out)["weights_digest"] == rows[0]["weights_digest"]


def test_export_says_first_what_it_will_write(mergetune, study, tmp_path):
    given = ("export", study, tmp_path / "out", "--trial", "0", "--shard-size", "50KB")
    code, out, _ = mergetune(*given, "--dry-run", "--json")
    assert code == 0
    assert not (tmp_path / "out").exists()
    assert mergetune(*given, "--quiet")[:2] == (0, "")
    assert json.loads(out)["files"] == len(list((tmp_path / "out").glob("*.safetensors"))) > 1


def test_card_of_an_exported_trial_says_what_is_known_of_it(mergetune, study, tmp_path):
    report = json.loads(mergetune("best", study, "--json")[1])
    for number in (0, report["trial"]):
        mergetune("export", study, tmp_path / str(number), "--trial", number)
    winner, base = ((tmp_path / str(n) / "README.md").read_text() for n in (report["trial"], 0))
    assert "model-index" in winner
    assert "`small`: the winner" in winner
    assert ": not the winner, which is trial" in base


def test_reproduce_says_identical_and_exits_0(mergetune, study):
    code, out, _ = mergetune("reproduce", study, "--trial", "best", "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert row["verdict"] == "identical"


def test_reproduce_has_a_row_for_every_trial_also_where_one_raises(mergetune, study, monkeypatch):
    from search.trial.builder import Builder

    build, calls = Builder.build, iter(range(1000))

    def broken(self, recipe):
        if next(calls) == 1:
            raise ValueError("no luck")
        return build(self, recipe)

    monkeypatch.setattr(Builder, "build", broken)
    code, out, _ = mergetune("reproduce", study, "--json")
    rows = json.loads(out)
    _, record = open_study(str(study))
    assert code == 1
    assert [row["number"] for row in rows] == list(range(len(record.trials)))
    wrong = [(r["number"], r["verdict"], r["reason"]) for r in rows if r["verdict"] != "identical"]
    assert wrong == [(1, "weights differ", "cannot be built any more: ValueError: no luck")]


@pytest.fixture
def altered(study, tmp_path):
    """Copy a finished study and change what its database says of it."""

    def get(change):
        shutil.copytree(study.parent, tmp_path / "altered")
        _, record = open_study(str(tmp_path / "altered"))
        record.begin(change(record.about))
        return tmp_path / "altered"

    return get


def test_export_opens_no_evaluator_and_needs_no_judges_key(mergetune, altered, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"q": "1 + 1"}\n' * 3)
    judge = {"evaluator": "judge", "file": str(rows), "prompt": "q", "base_url": "http://localhost"}
    judge |= {"model": "m", "rubric": "r", "api_key_env": "UNSET_API_KEY"}

    def judged(about):
        data = about["study"]
        return about | {"study": data | {"score": [*data["score"], judge]}}

    study = altered(judged)
    assert mergetune("export", study, tmp_path / "out")[0] == 0
    code, _, err = mergetune("reproduce", study, "--trial", "best")
    assert code == 1
    assert "UNSET_API_KEY (api_key_env) is not set" in err


def test_trials_and_best_need_neither_parents_nor_tasks(mergetune, study, altered):
    commands = [(c, *more) for c in ("trials", "best") for more in ((), ("--json",))]
    before = [mergetune(c, study, *more)[:2] for c, *more in commands]

    def gone(about):
        return json.loads(json.dumps(about).replace(str(QUICKSTART), "/gone"))

    study = altered(gone)
    assert [mergetune(c, study, *more)[:2] for c, *more in commands] == before
    code, _, err = mergetune("export", study, "out")
    assert code == 1
    assert "'/gone/models/add': no such folder" in err


def test_unknown_trial_is_one_line_and_exit_1(mergetune, study):
    code, out, err = mergetune("export", study, "nowhere", "--trial", "99")
    assert (code, out) == (1, "")
    assert "has no trial 99; it has 0 to" in err
    assert len(err.splitlines()) == 1


def test_bad_study_file_lists_every_problem_with_its_line(mergetune, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("recipe: {merge_method: tis, models: []}\nsearch: {sed: 1}\n")
    code, _, err = mergetune("check", file)
    assert code == 1
    assert f"{file}:2: search.sed: unknown key, did you mean 'seed'?" in err
    assert f"{file}:1: score: required" in err
    assert f"{file}:1: recipe.merge_method: no merge method 'tis', did you mean 'ties'?" in err


def test_bad_usage_exits_2(mergetune):
    assert mergetune("merge")[0] == 2
    assert mergetune("nothing")[0] == 2


def test_study_that_has_not_run_is_an_error(mergetune, tmp_path):
    study = write_study(tmp_path / "small")
    code, _, err = mergetune("trials", study)
    assert code == 1
    assert "run` the study first" in err


def test_one_method_is_printed_and_an_unknown_one_is_a_line_with_a_near_name(mergetune):
    code, out, _ = mergetune("methods", "slerp")
    assert (code, "cos(theta) = <W_b, W_1> / (|W_b| |W_1|)" in out) == (0, True)
    assert json.loads(mergetune("methods", "slerp", "--json")[1])["name"] == "slerp"
    code, out, err = mergetune("methods", "slrep")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("mergetune: no merge method is named 'slrep' (did you mean 'slerp'?)")


def test_methods_and_evaluators_print_tables_and_json(mergetune):
    assert "task_arithmetic" in mergetune("methods")[1]
    names = [row["name"] for row in json.loads(mergetune("methods", "--json")[1])]
    assert {"linear", "slerp", "ties", "dare_ties"} <= set(names)
    names = [row["name"] for row in json.loads(mergetune("evaluators", "--json")[1])]
    assert {"lm_eval", "exact_match", "judge"} <= set(names)
    assert "include_path" in mergetune("evaluators")[1]


def test_first_interrupt_ends_after_the_running_trial_and_keeps_what_is_settled(tmp_path):
    study = write_study(tmp_path / "small", trials=500)
    command = [sys.executable, "-m", "mergetune", "run", str(study)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = next(line for line in process.stderr if line.startswith("trial "))
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 1
    assert "stopping after this trial" in rest
    assert "stopped; run it again to go on" in rest
    assert "Best so far: trial " in rest
    shown = int(line.split()[1])  # trial 18 of 60 ...
    _, record = open_study(str(study))
    assert shown <= len(record.trials) < 510


def test_plugin_file_may_declare_samplers(mergetune, tmp_path, monkeypatch):
    monkeypatch.setattr(SAMPLERS, "_added", {})
    plugin = tmp_path / "mine.py"
    plugin.write_text("import optuna\nSAMPLERS = {'mine': optuna.samplers.TPESampler}\n")
    assert mergetune("evaluators", "--plugin", str(plugin))[0] == 0
    assert "mine" in SAMPLERS.names()


def test_plugin_file_is_read_before_the_study(mergetune, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from evaluators.jsonl.python_function import scorer\n\n"
        "@scorer(name='shortness')\ndef shortness(answer, item):\n    return 1.0\n"
    )
    code, out, err = mergetune("evaluators", "--plugin", str(plugin), "--json")
    assert code == 0, err
    assert json.loads(out)
    code, _, err = mergetune("evaluators", "--plugin", str(tmp_path / "nowhere.py"))
    assert code == 1
    assert "nowhere.py cannot be read" in err


def test_what_nobody_foresaw_is_one_line_in_every_command(mergetune, study, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)

    def broken(*_, **__):
        raise ZeroDivisionError("a bug\nof ours")

    for module in (stored, reproduce):
        monkeypatch.setattr(module, "open_study", broken)
    for module, name in ((cli.checks, "check"), (cli.api, "merge")):
        monkeypatch.setattr(module, name, broken)
    names = ("trials", "best", "check", "reproduce", "export", "merge")
    for command in names:
        out = [tmp_path / "out"] if command in ("export", "merge") else []
        code, _, err = mergetune(command, study, *out)
        assert code == 1
        assert err.startswith("mergetune: ZeroDivisionError: a bug of ours (traceback: ")
        file = Path(err.rpartition("traceback: ")[2].rstrip(")\n"))
        assert file.parent == tmp_path
        assert "in broken\n" in file.read_text()


def test_a_place_that_cannot_be_written_is_one_line_in_every_command(mergetune, study, tmp_path):
    (tmp_path / "file").touch()
    recipe = study.parent / "results" / "best.yaml"
    for command in (
        ("merge", recipe, tmp_path / "file" / "out"),
        ("export", study, tmp_path / "file" / "out"),
        ("inspect", recipe, "--html", tmp_path / "file" / "x.html"),
    ):
        code, _, err = mergetune(*command)
        assert (code, err.count("\n")) == (1, 1)
        assert f"{tmp_path / 'file'}" in err
        assert "cannot be written: " in err

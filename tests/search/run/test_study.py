import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from merge_core.errors import CheckpointError, MergeError, MergeWarning, OutputExistsError
from merge_core.recipe import read as recipe_reader
from search.report import files as results
from search.report.reproduce import reproduce
from search.storage.locate import open_study
from search.trial.builder import Builder
from tests.search.real import (
    QUICKSTART,
    run_and_kill,
    run_whole,
    without_costs,
    worker_of,
    write_study,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning"),  # mergekit
    pytest.mark.filterwarnings(
        "ignore:.*multi-threaded.*fork:DeprecationWarning"
    ),  # one thread runs
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("finished") / "small")
    return study, run_whole(study)


def rows(study):
    _, record = open_study(str(study))
    return [
        (t.number, t.recipe, dict(t.params), t.search.scores, t.weights_digest)
        for t in record.trials
    ]


def test_results_are_what_scripts_may_rely_on(finished):
    study, summary = finished
    folder = study.parent / "results"
    assert json.loads((folder / "summary.json").read_text()) == summary
    names = {"study.db", "best.yaml", "best-model", "report.html", "report.md"}
    assert {path.name for path in folder.iterdir()} >= names
    names = [row["name"] for row in summary["candidates"]]
    models = QUICKSTART / "models"
    assert names[:4] == ["base", f"parent:{models}/add", f"parent:{models}/sort", "uniform"]
    assert names[-1] == "winner"
    assert summary["best_simple"] in names
    assert summary["best_simple"].startswith("simple:") or names[-2] in ("uniform", "defaults")
    assert summary["pools"] == {"search": 16, "select": 12, "report": 20}
    assert set(summary["winner"]) >= {
        "trial", "recipe_digest", "weights_digest", "search", "select", "report",
        "minus_best_parent", "minus_best_simple", "minus_uniform", "minus_base",
    }  # fmt: skip


def test_run_of_a_finished_study_changes_nothing_and_gives_the_same_summary(finished):
    study, summary = finished
    before = (study.parent / "results" / "best-model" / "model.safetensors").stat().st_mtime_ns
    trials = rows(study)
    assert run_whole(study) == summary
    assert rows(study) == trials
    assert (
        study.parent / "results" / "best-model" / "model.safetensors"
    ).stat().st_mtime_ns == before


def test_sample_answers_are_what_the_scores_are_of(finished):
    _, record = open_study(str(finished[0]))
    assert set(record.samples) <= {"quickstart_add", "quickstart_sort"}
    told = [
        (way, x) for ways in record.samples.values() for way, some in ways.items() for x in some
    ]
    assert {way for way, _ in told} >= {"gained"}
    for way, x in told:
        right = {name: x[name].strip() == x["right"] for name in ("winner", "parent")}
        assert right == {"winner": way == "gained", "parent": way == "lost"}
        assert x["prompt"].endswith("=")


@pytest.mark.parametrize("damage", ["weights", "record", "no record"])
def test_a_best_model_that_is_not_whole_is_mended_by_the_next_run(finished, tmp_path, damage):
    study = tmp_path / "small"
    shutil.copytree(finished[0].parent, study)
    folder = study / "results" / "best-model"
    before = (folder / "model.safetensors").read_bytes()
    if damage == "weights":
        (folder / "model.safetensors").unlink()
    elif damage == "record":
        (folder / "mergetune.json").write_text("{")
    else:
        (folder / "mergetune.json").unlink()
    assert run_whole(study) == finished[1]
    assert (folder / "model.safetensors").read_bytes() == before
    assert json.loads((folder / "mergetune.json").read_text())["files"]


def test_a_second_study_in_a_folder_leaves_the_first_ones_results(finished, tmp_path):
    study = tmp_path / "small"
    shutil.copytree(finished[0].parent, study)
    before = (study / "results" / "summary.json").read_bytes()
    other = (study / "study.yaml").read_text().replace("name: small", "name: other")
    (study / "study.yaml").write_text(other)
    with pytest.raises(OutputExistsError, match="holds what study 'small' found"):
        run_whole(study)
    (study / "study.yaml").rename(study / "other.yaml")
    found = run_whole(study / "other.yaml")
    assert found["study"] == "other"
    assert (study / "results" / "summary.json").read_bytes() == before
    assert json.loads((study / "results" / "other" / "summary.json").read_text()) == found


def test_best_model_loads_with_transformers_and_is_the_winner(finished):
    from transformers import AutoModelForCausalLM

    study, summary = finished
    folder = study.parent / "results" / "best-model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    record = json.loads((folder / "mergetune.json").read_text())
    assert record["weights_digest"] == summary["winner"]["weights_digest"]


def test_card_of_the_best_model_has_the_reports_scores(finished):
    from huggingface_hub import ModelCard

    study, summary = finished
    card = ModelCard.load(study.parent / "results" / "best-model" / "README.md")
    expected = summary["winner"]["report"]["tasks"]
    assert {x.dataset_name: x.metric_value for x in card.data.eval_results} == {
        task: x["mean"] for task, x in expected.items()
    }
    assert {x.metric_type for x in card.data.eval_results} == {"exact_match"}
    assert "the winner" in card.text
    assert "merge_method: task_arithmetic" in card.text


def test_another_result_gives_a_card_anew_and_one_written_on_stays(finished, tmp_path):
    study = tmp_path / "small"
    shutil.copytree(finished[0].parent, study)
    card = study / "results" / "best-model" / "README.md"
    weights = card.parent / "model.safetensors"
    right, before = card.read_text(), weights.stat().st_mtime_ns
    card.unlink()
    run_whole(study)
    assert (card.read_text(), weights.stat().st_mtime_ns) == (right, before)
    card.write_text("mine")
    with pytest.warns(MergeWarning, match=r"README\.md: left as it is, since it is not as merget"):
        run_whole(study)
    assert card.read_text() == "mine"


def test_best_yaml_merged_by_hand_gives_the_winner(finished, tmp_path):
    from merge_core.api import merge

    study, summary = finished
    digest = merge(study.parent / "results" / "best.yaml", tmp_path / "out")
    assert digest == summary["winner"]["weights_digest"]


def test_best_yaml_is_plain_mergekit(finished, tmp_path):
    from mergekit.config import MergeConfiguration

    study, _ = finished
    data = yaml.safe_load((study.parent / "results" / "best.yaml").read_text())
    assert MergeConfiguration.model_validate(data).merge_method == data["merge_method"]
    assert recipe_reader.read(study.parent / "results" / "best.yaml").merge_method


def test_every_trial_reproduces_from_the_database_alone(finished):
    study, _ = finished
    (url,) = [f"sqlite:///{study.parent}/results/study.db"]
    spec, record = open_study(url)
    found = list(reproduce(record, worker_of(spec, record), range(len(record.trials))))
    assert [row["verdict"] for row in found] == ["identical"] * len(record.trials)


def test_exported_trial_scores_with_stock_lm_eval_what_the_study_recorded(finished, tmp_path):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    study, summary = finished
    spec, record = open_study(str(study))
    bench = worker_of(spec, record)
    trial = record.trial(summary["winner"]["trial"])
    results.export(bench.builder, trial, tmp_path / "out")
    found = simple_evaluate(
        model=HFLM(pretrained=str(tmp_path / "out"), dtype="float32", batch_size=16, device="cpu"),
        tasks=list(bench.tasks.evaluators),
        task_manager=TaskManager(include_path=str(QUICKSTART / "tasks"), include_defaults=False),
        bootstrap_iters=0,
    )
    for task, scores in trial.search.scores.items():
        of_doc = {s["doc_id"]: s["exact_match"] for s in found["samples"][task]}
        assert [of_doc[i] for i in bench.tasks.pools["search"].of(task)] == scores


def test_two_runs_with_one_seed_give_the_same_study(finished, tmp_path):
    study, summary = finished
    again = write_study(tmp_path / "small")
    assert without_costs(run_whole(again)) == without_costs(summary)
    assert rows(again) == rows(study)


def test_study_killed_at_many_moments_is_the_unbroken_one(finished, tmp_path):
    study, summary = finished
    broken = write_study(tmp_path / "small")
    kills = 0
    for after in [0.1, 0.4, 0.7, 1.0, 1.3, 1.6, 1.9, 2.2, 2.5, 2.8, 3.1, 3.4]:
        if run_and_kill(broken, after):
            break
        kills += 1
    assert kills >= 3  # a fast machine ends sooner; test_run has a kill at every commit
    assert without_costs(run_whole(broken)) == without_costs(summary)
    assert rows(broken) == rows(study)


@pytest.mark.parametrize("method", ["dare_ties", "ties"])
def test_other_methods_run_and_reproduce(tmp_path, method):
    study = write_study(
        tmp_path / "small",
        method=method,
        sampler="tpe",
        trials=2,
        more=", density: {low: 0.2, high: 1.0, step: 0.01}",
    )
    run_whole(study)
    spec, record = open_study(str(study))
    last = len(record.trials) - 1
    (row,) = reproduce(record, worker_of(spec, record), [last])
    assert row["verdict"] == "identical"


def test_changed_parent_is_named_and_stops_a_resumed_run(tmp_path):
    import shutil

    models = tmp_path / "models"
    shutil.copytree(QUICKSTART / "models", models)
    study = write_study(tmp_path / "small", models=models, trials=1)
    run_whole(study)
    weights = load_file(models / "sort" / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 2
    save_file(weights, models / "sort" / "model.safetensors", metadata={"format": "pt"})
    spec, record = open_study(str(study))
    found = list(reproduce(record, worker_of(spec, record), [1, 2]))
    assert [row["verdict"] for row in found] == ["identical", "weights differ"]
    assert found[1]["changed_parents"] == [f"{models}/sort"]
    with pytest.raises(CheckpointError, match="not written, the merge gives other weights"):
        results.export(Builder(spec, record.about), record.trial(2), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(MergeError, match=r"the weights of .*/sort are not those that study"):
        run_whole(study)


def test_missing_model_folder_is_named(tmp_path):
    study = write_study(tmp_path / "small", models=tmp_path / "nowhere")
    with pytest.raises(MergeError, match=r"nowhere/.*no such folder"):
        run_whole(study)


def test_second_run_of_a_study_is_refused_while_one_is_writing(tmp_path):
    from filelock import FileLock

    study = write_study(tmp_path / "small")
    (tmp_path / "small" / "results").mkdir()
    with (
        FileLock(tmp_path / "small" / "results" / ".writer.lock"),
        pytest.raises(MergeError, match="another run of this study is writing"),
    ):
        run_whole(study)


def test_another_batch_size_and_other_threads_go_on_and_reproduce(tmp_path):
    study = write_study(tmp_path / "small", trials=1)
    run_whole(study)
    text = study.read_text().replace("batch_size: 16, threads: 1", "batch_size: 5, threads: 2")
    study.write_text(text.replace("trials: 1,", "trials: 2,").replace("report: 20", "report: 30"))
    threads = torch.get_num_threads()
    try:
        run_whole(study)
        spec, record = open_study(str(study))
        found = list(reproduce(record, worker_of(spec, record), range(len(record.trials))))
    finally:
        torch.set_num_threads(threads)
    assert {row["verdict"] for row in found} == {"identical"}
    asked = [run["environment"] for run in record.runs]
    assert [(x["batch_size"], x["threads"]) for x in asked] == [(16, 1), (5, 2)]

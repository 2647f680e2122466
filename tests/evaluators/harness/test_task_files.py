"""Task files bring code only with consent, and data that lie beside them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import yaml

from evaluators.harness.task_files import task_code
from merge_core.errors import EvaluationError
from tests.evaluators.conftest import CHOICE, metric

DOCS = [{"q": f"say {c}:", "a": i % 2, "choices": ["x", "y"]} for i, c in enumerate("abcdef")]
FUNCTION = "!function code.made"
KEYS = {  # where a task file may name a function
    "process_docs": {"process_docs": FUNCTION},
    "doc_to_text": {"doc_to_text": FUNCTION},
    "doc_to_target": {"doc_to_target": FUNCTION},
    "doc_to_choice": {"doc_to_choice": FUNCTION},
    "process_results": {"process_results": FUNCTION},
    "custom_dataset": {"custom_dataset": FUNCTION},
    "class": {"class": FUNCTION},
    "metric": {"metric_list": [metric(FUNCTION)]},
    "aggregation": {"metric_list": [{"metric": "acc", "aggregation": FUNCTION}]},
    "filter": {"filter_list": [{"name": "f", "filter": [{"function": FUNCTION}]}]},
    "sampler": {"fewshot_config": {"sampler": FUNCTION}},
    "samples": {"fewshot_config": {"samples": FUNCTION}},
}


@pytest.fixture
def ran(tasks):
    """A file that the code beside the task files would make."""
    file = tasks.folder / "RAN"
    code = f"open({str(file)!r}, 'w').close()\ndef made(docs, *rest, **more):\n    return docs\n"
    (tasks.folder / "code.py").write_text(code)
    return file


@pytest.mark.parametrize("key", KEYS)
def test_code_of_a_task_file_is_refused_with_its_line_and_the_flag(key, tasks, ran):
    tasks.write("coded", DOCS, **CHOICE | KEYS[key])
    lines = (tasks.folder / "coded.yaml").read_text().splitlines()
    line = next(i for i, text in enumerate(lines, start=1) if FUNCTION in text)
    with pytest.raises(EvaluationError) as refused:
        tasks.open("coded")
    start = f"{tasks.folder / 'coded.yaml'}:{line}: code of a task file runs only with --trust-"
    assert str(refused.value).startswith(start)
    assert "\n" not in str(refused.value)
    assert not ran.exists()


def test_code_of_an_included_file_is_refused(tasks, ran):
    tasks.write("coded", DOCS, **CHOICE | KEYS["process_docs"])
    (tasks.folder / "coded.yaml").rename(tasks.folder / "_template")
    (tasks.folder / "outer.yaml").write_text("include: _template\ntask: outer\n")
    with pytest.raises(EvaluationError, match=r"_template:\d+: code of a task file"):
        tasks.open("outer")
    assert not ran.exists()


def test_code_of_a_groups_member_is_refused(tasks, ran):
    tasks.write("coded", DOCS, **CHOICE | KEYS["process_docs"])
    with pytest.raises(EvaluationError, match=r"coded\.yaml:\d+: code of a task file"):
        tasks.open_any({"group": "written_out", "task": ["coded"]})
    assert not ran.exists()


def test_module_that_is_installed_is_code_too(tasks):
    tasks.write("coded", DOCS, **CHOICE, process_docs="!function os.system")
    with pytest.raises(EvaluationError, match=r"got !function os\.system; read it"):
        tasks.open("coded")


def test_code_runs_with_consent_which_ends_with_its_block(tasks, ran):
    tasks.write("coded", DOCS, **CHOICE | KEYS["process_docs"])
    with task_code(trusted=True):
        assert len(tasks.open("coded").items) == len(DOCS)
    assert ran.exists()
    with pytest.raises(EvaluationError, match="--trust-tasks"):
        tasks.open("coded")


def test_block_without_consent_takes_none_away(tasks, ran):
    tasks.write("coded", DOCS, **CHOICE | KEYS["process_docs"])
    with task_code(trusted=True), task_code(trusted=False):
        assert len(tasks.open("coded").items) == len(DOCS)


@pytest.mark.parametrize("text", [FUNCTION, {"function": FUNCTION}])
def test_task_written_out_in_a_study_brings_no_code(text, tasks, ran):
    tasks.write("kind", DOCS, **CHOICE)
    settings = yaml.safe_load((tasks.folder / "kind.yaml").read_text())
    for key in ("process_docs", "custom_dataset", "class", "process_results"):
        with contextlib.suppress(EvaluationError):  # lm-eval ignores a text as custom_dataset
            tasks.open({**settings, "task": "inline", key: text})
    assert not ran.exists()


@pytest.mark.parametrize("hub", [False, True])
@pytest.mark.parametrize("written_out", [False, True])
def test_metric_that_is_a_folder_or_of_the_hub_runs_no_code(
    hub, written_out, tasks, tmp_path, monkeypatch
):
    (tmp_path / "acc").mkdir()
    (tmp_path / "acc" / "acc.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    named = metric("acc", hf_evaluate=True) if hub else metric(str(tmp_path / "acc"))
    tasks.write("measured", DOCS, **CHOICE | {"metric_list": [named]})
    task = yaml.safe_load((tasks.folder / "measured.yaml").read_text())
    with pytest.raises(EvaluationError, match="--trust-tasks"):
        tasks.open({**task, "task": "inline"} if written_out else "measured")
    assert not (tmp_path / "RAN").exists()


def test_lm_evals_own_task_files_need_no_consent(monkeypatch):
    import lm_eval.tasks
    from lm_eval.tasks import _factory

    from evaluators.harness.task_files import install_rules

    install_rules()
    own = Path(lm_eval.tasks.__file__).parent / "hellaswag" / "hellaswag.yaml"
    assert callable(_factory.load_yaml(own, resolve_func=True)["process_docs"])


@pytest.mark.parametrize("files", ["own.jsonl", ["own.jsonl"], {"test": "own.jsonl"}])
def test_data_beside_a_task_file_are_found_from_every_folder(files, tasks, tmp_path, monkeypatch):
    split = "test" if isinstance(files, dict) else "train"
    cache = str(tasks.folder / "cache")
    tasks.write(
        "near", DOCS, **CHOICE, dataset_kwargs={"data_files": files, "cache_dir": cache},
        test_split=split, fewshot_split=split,
    )  # fmt: skip
    (tasks.folder / "own.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    monkeypatch.chdir(tmp_path)
    assert len(tasks.open("near").items) == len(DOCS)


def test_data_that_do_not_lie_beside_a_task_file_are_looked_for_as_in_lm_eval(
    tasks, tmp_path, monkeypatch
):
    cache = str(tasks.folder / "cache")
    settings = {"data_files": {"test": "far.jsonl"}, "cache_dir": cache}
    tasks.write("far", DOCS, **CHOICE, dataset_kwargs=settings)
    (tasks.folder / "far.jsonl").rename(tmp_path / "far.jsonl")
    monkeypatch.chdir(tmp_path)
    assert len(tasks.open("far").items) == len(DOCS)

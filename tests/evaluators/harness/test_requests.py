from __future__ import annotations

import pytest

from evaluators.harness import index
from evaluators.harness.open import EVALUATOR
from merge_core.errors import EvaluationError, UnknownNameError

DOCS = [{"q": f"say {c}:", "a": c} for c in "abcdef"]


def test_unknown_task_is_answered_with_the_nearest_name(tasks, monkeypatch):
    only_local(monkeypatch, tasks)
    tasks.write("addition", DOCS)
    with pytest.raises(UnknownNameError, match=r"no lm-eval task is named 'adition', did you mean"):
        tasks.open("adition")


@pytest.mark.slow
def test_unknown_task_is_compared_with_lm_evals_own(tasks):
    with pytest.raises(UnknownNameError, match=r"'gsm8kk', did you mean 'gsm8k'\?"):
        tasks.open("gsm8kk")


def test_include_path_that_is_no_folder_is_refused(tmp_path, tokenizer):
    options = EVALUATOR.options(task="x", include_path="missing")
    with pytest.raises(EvaluationError, match=r"include_path .*missing is not a folder"):
        EVALUATOR.open(options, tmp_path, tokenizer)


def test_examples_for_a_task_that_forbids_them_are_refused(tasks):
    tasks.write("bare", DOCS, num_fewshot=0)
    with pytest.raises(EvaluationError, match="sets num_fewshot to 0 in its file"):
        tasks.open("bare", num_fewshot=2)


def test_more_examples_than_there_are_documents_are_refused(tasks):
    tasks.write("few", DOCS)
    with pytest.raises(EvaluationError, match=r"'few' cannot be loaded: ValueError: Sample larger"):
        tasks.open("few", num_fewshot=50)


def test_chat_template_that_the_tokenizer_lacks_is_refused(tasks, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    tasks.write("chat", DOCS)
    with pytest.raises(EvaluationError, match="the tokenizer has no chat template"):
        tasks.open("chat", apply_chat_template=True)


def test_task_whose_data_are_missing_is_refused_with_the_cause(tasks):
    tasks.write("gone", DOCS)
    (tasks.folder / "gone.jsonl").unlink()
    with pytest.raises(EvaluationError, match="'gone' cannot be loaded: FileNotFoundError") as got:
        tasks.open("gone")
    assert isinstance(got.value.__cause__, FileNotFoundError)


@pytest.mark.usefixtures("trusted")
def test_documents_that_shuffle_when_loaded_are_the_same_each_time(tasks):
    code = (
        "import random\n\n\ndef shuffled(docs):\n"
        "    return docs.map(lambda doc: {'n': random.random()}, load_from_cache_file=False)\n"
    )
    (tasks.folder / "code.py").write_text(code)
    tasks.write("shuffled", DOCS, process_docs="!function code.shuffled")
    assert tasks.open("shuffled").items == tasks.open("shuffled").items


@pytest.mark.usefixtures("trusted")
def test_task_that_makes_its_own_dataset_is_loaded(tasks):
    code = (
        "import datasets\n\n\ndef load(**metadata):\n"
        "    docs = [{'q': 'say a:', 'a': 'a'}, {'q': 'say b:', 'a': 'b'}]\n"
        "    return datasets.DatasetDict(test=datasets.Dataset.from_list(docs))\n"
    )
    (tasks.folder / "code.py").write_text(code)
    made = {"custom_dataset": "!function code.load", "dataset_kwargs": None, "dataset_path": None}
    tasks.write("made", [], **made)
    assert len(tasks.open("made").items) == 2


def only_local(monkeypatch, tasks):
    """Spare the four seconds that lm-eval takes to index its own tasks."""
    from lm_eval.tasks import TaskManager

    local = TaskManager(include_path=str(tasks.folder), include_defaults=False)
    monkeypatch.setattr(index, "_own_tasks", lambda: local)


def test_data_file_without_a_row_is_an_error_of_the_task(tasks):
    tasks.write("bare", DOCS)
    (tasks.folder / "bare.jsonl").write_text("")
    with pytest.raises(EvaluationError, match=r"lm-eval task 'bare' cannot be loaded: "):
        tasks.open("bare")

from __future__ import annotations

import pytest

from evaluators.harness import index
from evaluators.harness.task import EVALUATOR
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


@pytest.mark.parametrize("how", [{"do_sample": True, "temperature": 1.0}, {"temperature": 0.7}])
def test_answers_drawn_at_random_are_refused(how, tasks):
    tasks.write("drawn", DOCS, generation_kwargs={"until": ["\n"], **how})
    with pytest.raises(EvaluationError, match="draws its answers at random"):
        tasks.open("drawn")


def test_answers_that_the_study_wants_drawn_at_random_are_refused(tasks):
    tasks.write("greedy", DOCS)
    with pytest.raises(EvaluationError, match="draws its answers at random"):
        tasks.open("greedy", gen_kwargs={"do_sample": True, "temperature": 1.0})


def test_generation_settings_of_a_task_without_generation_are_refused(standard):
    with pytest.raises(EvaluationError, match="'choice' has gen_kwargs, but generates nothing"):
        standard.open("choice", gen_kwargs={"max_gen_toks": 3})


@pytest.mark.parametrize(
    "option", [{"num_fewshot": 2}, {"system_instruction": "x"}, {"apply_chat_template": True}]
)
def test_prompts_of_whole_texts_are_refused(option, standard):
    with pytest.raises(EvaluationError, match=f"no prompts; omit {next(iter(option))}"):
        standard.open("texts", **option)


def test_unsafe_code_is_refused(tasks):
    tasks.write("code", DOCS, unsafe_code=True)
    with pytest.raises(EvaluationError, match="runs code that the model writes"):
        tasks.open("code")


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


def test_documents_that_shuffle_when_loaded_are_the_same_each_time(tasks):
    code = (
        "import random\n\n\ndef shuffled(docs):\n"
        "    return docs.map(lambda doc: {'n': random.random()}, load_from_cache_file=False)\n"
    )
    (tasks.folder / "code.py").write_text(code)
    tasks.write("shuffled", DOCS, process_docs="!function code.shuffled")
    assert tasks.open("shuffled").items == tasks.open("shuffled").items


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

from __future__ import annotations

import pytest

from merge_core.errors import EvaluationError

DOCS = [{"q": f"say {c}:", "a": c} for c in "abcdef"]


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

from __future__ import annotations

import pytest

from merge_core.errors import EvaluationError
from tests.evaluators.conftest import CHOICE

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


@pytest.mark.parametrize(
    ("how", "rule"),
    [
        ({"max_gen_toks": 0}, "asks for an answer of max_gen_toks: 0, expected a whole number of"),
        ({"max_new_tokens": -5}, "asks for an answer of max_new_tokens: -5, expected a whole"),
        ({"max_gen_toks": "many"}, "asks for an answer of max_gen_toks: 'many', expected a whole"),
        ({"until": [1]}, r"stops an answer at until: \[1\], expected texts"),
    ],
)
def test_generation_settings_that_no_answer_has_are_refused(how, rule, tasks):
    tasks.write("odd", DOCS, generation_kwargs=how)
    with pytest.raises(EvaluationError, match=f"'odd': document 0 {rule}"):
        tasks.open("odd")


def test_an_empty_choice_is_refused_with_its_document(tasks):
    docs = [{"q": "say a:", "choices": ["a", "b"], "a": 0}]
    docs += [{"q": "say b:", "choices": ["a", ""], "a": 0}]
    tasks.write("pick", docs, **CHOICE | {"target_delimiter": ""})
    with pytest.raises(EvaluationError, match="'pick': document 1 has an empty choice"):
        tasks.open("pick")


@pytest.mark.parametrize("repeats", [10**9, -1, "many"])
def test_endless_repeats_are_refused(repeats, tasks):
    tasks.write("again", DOCS, repeats=repeats)
    with pytest.raises(
        EvaluationError, match=f"'again': repeats: expected 1 to 1000, got .?{repeats}"
    ):
        tasks.open("again")


def test_unsafe_code_is_refused(tasks):
    tasks.write("code", DOCS, unsafe_code=True)
    with pytest.raises(EvaluationError, match="runs code that the model writes"):
        tasks.open("code")

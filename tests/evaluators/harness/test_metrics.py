from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import softmax

from merge_core.errors import EvaluationError, UnknownNameError
from tests.evaluators.conftest import CHOICE, ROLLING, choice_docs, metric, text_docs
from tests.evaluators.own_files import open_entry

WEIGHTED = {"word_perplexity": 1.0, "byte_perplexity": 1.0, "bits_per_byte": math.log(2)}
ROUNDING = 4e-5  # nats, see evaluators.engines.hf.engine
NOT_SUMS = 1e-13  # a weighted mean of means rounds otherwise than a quotient of sums


def scores_of(task, live):
    return task.score(live, range(len(task.items)))


@pytest.mark.parametrize("name", WEIGHTED)
def test_weighted_mean_of_the_texts_is_lm_evals_number(name, standard, live, lm_eval_says):
    task = standard.open("texts", metric=name)
    theirs = lm_eval_says(live, standard, "texts")
    scores, sizes = scores_of(task, live), np.array(task.sizes)
    pairs = theirs.items(name, "none")
    assert sizes.tolist() == [size for _, size in pairs]
    assert scores.tolist() == pytest.approx(
        [-x / n / WEIGHTED[name] for x, n in pairs], rel=5e-7, abs=ROUNDING
    )
    number = task.reported(float(scores @ sizes / sizes.sum()))
    # a perplexity is the exp of nats, which agree to 5e-7 of their value
    rel = 5e-7 * max(1.0, abs(math.log(number)))
    assert number == pytest.approx(theirs.results[f"{name},none"], rel=rel)
    assert task.higher_is_better is False


@pytest.mark.parametrize("name", WEIGHTED)
def test_weighted_mean_of_lm_evals_own_items_is_its_number_to_the_last_digits(
    name, standard, live, lm_eval_says
):
    # the arithmetic alone, without the engine's rounding
    theirs = lm_eval_says(live, standard, "texts")
    task = standard.open("texts", metric=name)
    scores = np.array([task._reduction.score({name: x}) for x in theirs.items(name, "none")])
    sizes = np.array(task.sizes)
    number = task.reported(float(scores @ sizes / sizes.sum()))
    assert number == pytest.approx(theirs.results[f"{name},none"], rel=NOT_SUMS)


@pytest.mark.usefixtures("trusted")
def test_sizes_are_those_that_the_task_itself_counts(tasks, live, lm_eval_says):
    # as wikitext does: the model reads a cleaned text, the words are those of the page
    code = (
        "def clean(doc):\n    return doc['text'].replace('say', '')\n\n\n"
        "def results(doc, answers):\n"
        "    (nats,) = answers\n"
        "    return {'word_perplexity': (nats, len(doc['text']))}\n"
    )
    (tasks.folder / "code.py").write_text(code)
    own = {"doc_to_target": "!function code.clean", "process_results": "!function code.results"}
    metrics = [{"metric": "word_perplexity"}]
    tasks.write("page", text_docs(), **{**ROLLING, **own, "metric_list": metrics})
    task = tasks.open("page")
    assert task.sizes == tuple(len(doc["text"]) for doc in text_docs())
    scores, sizes = scores_of(task, live), np.array(task.sizes)
    number = task.reported(float(scores @ sizes / sizes.sum()))
    theirs = lm_eval_says(live, tasks, "page").results["word_perplexity,none"]
    assert number == pytest.approx(theirs, rel=1e-6)


def test_plain_mean_of_the_texts_is_another_number(standard, live):
    # guards the tests above: sizes must matter
    task = standard.open("texts")
    scores, sizes = scores_of(task, live), np.array(task.sizes)
    assert abs(scores.mean() - scores @ sizes / sizes.sum()) > 1e-3


def test_perplexity_is_that_of_the_mean_of_the_items(standard, live, lm_eval_says):
    task = standard.open("ends", metric="perplexity", num_fewshot=1)
    theirs = lm_eval_says(live, standard, "ends", num_fewshot=1)
    scores = scores_of(task, live)
    nats = theirs.items("perplexity", "none")
    assert scores.tolist() == pytest.approx([-x for x in nats], rel=5e-7, abs=ROUNDING)
    number = task.reported(float(scores.mean()))
    assert number == pytest.approx(theirs.results["perplexity,none"], rel=1e-5)
    assert (task.higher_is_better, task.sizes) == (False, None)


def test_perplexity_too_large_for_a_number_is_infinite(standard):
    assert standard.open("texts").reported(800.0) == math.inf


def test_empty_text_is_refused(tasks):
    tasks.write("texts", [*text_docs(), {"text": ""}], **ROLLING)
    with pytest.raises(EvaluationError, match=r"document 12 is empty; leave it out"):
        tasks.open("texts")


def test_metric_of_the_hub_is_refused_before_anything_is_scored(tasks):
    tasks.write("summaries", [{"q": "say a:", "a": "a"}], metric_list=[metric("rouge")])
    with pytest.raises(EvaluationError, match="metric rouge, which neither lm-eval nor"):
        tasks.open("summaries")


def test_chance_is_the_mean_share_of_one_choice(tasks):
    docs = choice_docs()
    for doc in docs[:7]:
        doc["choices"] = doc["choices"][:2]
        doc["a"] = 0
    tasks.write("choice", docs, **CHOICE)
    assert tasks.open("choice").chance == pytest.approx((7 / 2 + 14 / 3) / 21)


def test_chance_counts_a_choice_once_where_it_is_asked_twice(tasks):
    both = [metric("acc"), metric("acc_mutual_info")]
    tasks.write("choice", choice_docs(), **{**CHOICE, "metric_list": both})
    assert tasks.open("choice").chance == pytest.approx(1 / 3)


def test_free_answers_are_never_right_by_chance(standard):
    assert standard.open("gen").chance == 0.0


@pytest.mark.parametrize("options", [("ends", "acc"), ("texts", "bits_per_byte")])
def test_chance_of_other_tasks_is_not_known(options, standard):
    assert standard.open(options[0], metric=options[1]).chance is None


# Graded metrics of a choice

BY_HAND = {
    "margin": lambda nats, right: nats[right] - max(nats[:right] + nats[right + 1 :]),
    "probability": lambda nats, right: softmax(nats)[right],
}
both_graded = pytest.mark.parametrize("name", BY_HAND)


def graded(name, live, docs):
    """Return what the engine's log-probabilities of the choices give, question by question."""
    found = []
    for doc in docs:
        pairs = [(doc["q"], f" {choice}") for choice in doc["choices"]]
        nats = [x for x, _ in live.engine.loglikelihood(pairs)]
        found.append(BY_HAND[name](nats, doc["a"]))
    return found


@both_graded
def test_graded_metric_is_made_of_the_log_probabilities_of_the_choices(name, standard, live):
    task = standard.open("choice", metric=name)
    scores = scores_of(task, live)
    assert scores.tolist() == pytest.approx(graded(name, live, choice_docs()), abs=ROUNDING)
    assert (task.unit, task.higher_is_better, task.sizes) == (name, True, None)


def test_margin_is_above_0_where_the_likeliest_choice_is_right(standard, live):
    scores = scores_of(standard.open("choice", metric="margin"), live)
    assert ((scores > 0) == (scores_of(standard.open("choice"), live) == 1)).all()
    assert min(scores) < 0 < max(scores)


@both_graded
def test_chance_of_a_probability_is_that_of_the_choice_and_of_no_margin(name, standard):
    known = {"margin": None, "probability": standard.open("choice").chance}
    assert standard.open("choice", metric=name).chance == known[name]
    assert known["probability"] == pytest.approx(1 / 3)


@both_graded
@pytest.mark.parametrize("examples", [0, 2])
def test_graded_metric_is_that_of_our_own_questions(name, examples, standard, tokenizer, live):
    ask = {"file": "choice.jsonl", "prompt": "{{ q }}", "choices": "choices", "gold": "a"}
    ours = open_entry("multiple_choice", standard.folder, tokenizer, metric=name, **ask)
    theirs = standard.open("choice", metric=name, num_fewshot=examples)
    same = scores_of(ours, live).tolist() == scores_of(theirs, live).tolist()
    assert same == (examples == 0)  # ours has none


@both_graded
def test_choices_without_their_question_have_no_say_in_a_graded_metric(name, tasks, live):
    both = [metric("acc"), metric("acc_mutual_info")]
    tasks.write("choice", choice_docs(), **{**CHOICE, "metric_list": both})
    task = tasks.open("choice", metric=name)
    expected = graded(name, live, choice_docs())
    assert scores_of(task, live).tolist() == pytest.approx(expected, abs=ROUNDING)
    assert task.chance == (None if name == "margin" else pytest.approx(1 / 3))


@both_graded
def test_the_right_choice_may_be_named_by_its_text(name, tasks, live):
    docs = [{**doc, "a": doc["choices"][doc["a"]]} for doc in choice_docs()]
    tasks.write("named", docs, **CHOICE)
    scores = scores_of(tasks.open("named", metric=name), live)
    assert scores.tolist() == pytest.approx(graded(name, live, choice_docs()), abs=ROUNDING)


@both_graded
def test_a_choice_of_questions_has_graded_metrics(name, tasks, live):
    # as winogrande does: the choices are beginnings, the answer is the end of all of them
    docs = [{"starts": ["say a", "say bb", "c"], "a": i % 3, "end": f"x{i}"} for i in range(8)]
    own = {"doc_to_text": "a", "doc_to_target": "end", "doc_to_choice": "starts"}
    tasks.write("starts", docs, **{**CHOICE, **own})
    expected = []
    for doc in docs:
        pairs = [(start, f" {doc['end']}") for start in doc["starts"]]
        nats = [x for x, _ in live.engine.loglikelihood(pairs)]
        expected.append(BY_HAND[name](nats, doc["a"]))
    scores = scores_of(tasks.open("starts", metric=name), live)
    assert scores.tolist() == pytest.approx(expected, abs=ROUNDING)


@both_graded
@pytest.mark.parametrize("change", [{"a": 3}, {"a": -1}, {"a": "z"}, {"choices": ["a0"]}])
def test_a_question_without_a_right_and_a_wrong_choice_is_not_graded(name, change, tasks):
    tasks.write("choice", [*choice_docs(), {**choice_docs()[0], **change}], **CHOICE)
    with pytest.raises(EvaluationError, match=f"'{name}' needs one right choice and another one"):
        tasks.open("choice", metric=name)
    assert tasks.open("choice").unit == "acc"


@pytest.mark.usefixtures("trusted")
@both_graded
def test_a_task_with_rules_of_its_own_has_no_graded_metric_but_its_own(name, tasks, live):
    code = f"def results(doc, answers):\n    return {{'acc': 1.0, '{name}': 7.0}}\n"
    (tasks.folder / "code.py").write_text(code)
    own = {**CHOICE, "process_results": "!function code.results"}
    tasks.write("coded", choice_docs(), **{**own, "metric_list": [metric("acc")]})
    with pytest.raises(UnknownNameError, match=rf"no metric '{name}'; known: acc$"):
        tasks.open("coded", metric=name)
    both = [metric("acc"), {**metric(name), "higher_is_better": False}]
    tasks.write("coded", choice_docs(), **{**own, "metric_list": both})
    task = tasks.open("coded", metric=name)
    assert set(scores_of(task, live)) == {7.0}
    assert (task.higher_is_better, task.chance) == (False, None)
